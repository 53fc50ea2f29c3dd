/** Starts the worker and wraps it as a `ChatEngine`: the only file of page/ that knows there is a worker. */
import type { ChatEngine, EngineEvent } from '../api';

export interface EngineHandle extends ChatEngine {
  /** End the engine; no event follows. */
  close(): void;
}

export function startEngine(): EngineHandle {
  const worker = new Worker(new URL('../worker/engine.worker.ts', import.meta.url), { type: 'module', name: 'splitllm-engine' });
  return {
    post(command) {
      worker.postMessage(command);
    },
    listen(listener) {
      worker.addEventListener('message', (message: MessageEvent<EngineEvent>) => {
        listener(message.data);
      });
      worker.addEventListener('error', (event) => {
        // Without a message the script itself did not load.
        const cause = event.message === '' ? 'could not be loaded' : `stopped (${event.message})`;
        listener(failure('worker_failed', `The engine in your browser ${cause}. Reconnect, or reload the page.`));
      });
      worker.addEventListener('messageerror', () => {
        listener(failure('worker_message', 'The engine in your browser sent something unreadable. Reconnect, or reload the page.'));
      });
    },
    close() {
      worker.terminate();
    },
  };
}

function failure(code: string, sentence: string): EngineEvent {
  return { type: 'failed', ask: null, code, sentence };
}
