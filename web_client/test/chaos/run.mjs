// Conversations of the page's engine, some at once: reads a JSON list of lives (client.ts), writes a JSON list of their answers.
// node --experimental-websocket test/chaos/run.mjs < lives.json
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { createServer } from 'vite';

/** So few that none has to wait for the others' computing: that would look like a server that is silent. */
const AT_ONCE = 16;

const here = dirname(fileURLToPath(import.meta.url));
// Blocks are what is not tested here, and need a browser.
const fakes = { './growth': join(here, 'growth.ts'), './ort': join(here, 'ort.ts') };
const server = await createServer({
  root: join(here, '../..'),
  configFile: false,
  logLevel: 'error',
  appType: 'custom',
  server: { middlewareMode: true, hmr: false, ws: false, watch: null },
  optimizeDeps: { noDiscovery: true, include: [] },
  plugins: [{ name: 'fake-blocks', enforce: 'pre', resolveId: (source) => fakes[source] }],
});
if (globalThis.navigator === undefined) globalThis.navigator = {};
const { converse, hurry } = await server.ssrLoadModule('/test/chaos/client.ts');
const lives = JSON.parse(await text(process.stdin));
hurry();
const answers = [];
const todo = lives.entries();
const live = async () => {
  for (const [number, life] of todo) answers[number] = await converse(life);
};
await Promise.all(Array.from({ length: AT_ONCE }, live));
process.stdout.write(JSON.stringify(answers));
process.exit(0);
