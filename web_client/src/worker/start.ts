/** Starts the engine in its own thread. The only file of `worker/` that the page imports. */
import type { ChatEngine, Command, EngineEvent } from '../api';

export function startEngine(): ChatEngine {
  const worker = new Worker(new URL('./engine.worker.ts', import.meta.url), { type: 'module', name: 'splitllm-engine' });
  const listeners: ((event: EngineEvent) => void)[] = [];
  const tell = (event: EngineEvent): void => {
    for (const listener of listeners) listener(event);
  };

  worker.addEventListener('message', (message: MessageEvent<EngineEvent>) => {
    tell(message.data);
  });
  // Fires when the worker's script cannot be loaded, or throws where nothing catches.
  worker.addEventListener('error', (event) => {
    const detail = event.message ? ` (${event.message})` : '';
    tell({ type: 'failed', ask: null, code: 'worker_failed', sentence: `The engine stopped${detail}. Reload the page.` });
  });

  return {
    post: (command: Command) => {
      worker.postMessage(command);
    },
    listen: (listener) => {
      listeners.push(listener);
    },
  };
}
