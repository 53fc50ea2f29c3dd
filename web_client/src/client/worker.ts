/** Starts the engine's worker: the only file outside worker/ that knows there is one. */
import type { Command, EngineEvent } from '../api';
import { RuntimeError } from '../protocol/errors';
import workerPath from '../worker/engine.worker?worker&url';
import type { EnginePort } from './engine';

const script = new URL(workerPath, import.meta.url);

/** For the worker to say goodbye to its server. */
const GOODBYE_MS = 500;

export function startWorker(): EnginePort {
  let closed = false;
  const worker = new Worker(startable(script), { type: 'module', name: 'splitllm-engine' });
  return {
    post(command) {
      worker.postMessage(command);
    },
    listen(listener, died) {
      worker.addEventListener('message', (message: MessageEvent<EngineEvent>) => {
        if (!closed) listener(message.data);
      });
      worker.addEventListener('error', (event) => {
        // Without a message the script itself did not load.
        const cause = event.message === '' ? 'could not be loaded' : `stopped (${event.message})`;
        died(new RuntimeError('worker_failed', `The engine in your browser ${cause}. Reconnect, or reload the page.`));
      });
      worker.addEventListener('messageerror', () => {
        died(new RuntimeError('worker_message', 'The engine in your browser sent something unreadable. Reconnect, or reload the page.'));
      });
    },
    close() {
      closed = true;
      const goodbye: Command = { type: 'close' };
      worker.postMessage(goodbye);
      setTimeout(() => {
        worker.terminate();
      }, GOODBYE_MS);
    },
  };
}

/** A page may start workers of its own origin only. One that is embedded elsewhere starts a worker there, which imports the script. */
function startable(url: URL): URL | string {
  if (url.origin === location.origin) return url;
  return URL.createObjectURL(new Blob([`import ${JSON.stringify(url.href)};`], { type: 'text/javascript' }));
}
