/** The engine's thread. */
import type { Command, EngineEvent } from '../api';

const scope = self as unknown as DedicatedWorkerGlobalScope;
scope.addEventListener('message', (message: MessageEvent<Command>) => {
  const event: EngineEvent = { type: 'failed', ask: null, code: 'not_built', sentence: `The engine cannot do ${message.data.type} yet.` };
  scope.postMessage(event);
});
