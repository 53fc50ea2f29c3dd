import { createReadStream } from 'node:fs';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';

const here = fileURLToPath(new URL('.', import.meta.url));
const output = join(here, '../backend/splitllm/_page');
const runtime = join(here, 'node_modules/onnxruntime-web');
const { version } = JSON.parse(await readFile(join(runtime, 'package.json'), 'utf8')) as { version: string };

/** 27 MB that must keep their names (the glue loads the wasm by name): a folder with the version lets them be cached for good. */
const runtimeFolder = `ort/${version}`;
const runtimeFiles = { 'ort-wasm-simd-threaded.asyncify.mjs': 'text/javascript', 'ort-wasm-simd-threaded.asyncify.wasm': 'application/wasm' };

function onnxRuntimeFiles(): Plugin {
  return {
    name: 'onnx-runtime-files',
    configureServer(server) {
      for (const [name, type] of Object.entries(runtimeFiles)) {
        server.middlewares.use(`/${runtimeFolder}/${name}`, (_request, response) => {
          response.setHeader('content-type', type);
          createReadStream(join(runtime, 'dist', name)).pipe(response);
        });
      }
    },
    async writeBundle() {
      await mkdir(join(output, runtimeFolder), { recursive: true });
      for (const name of Object.keys(runtimeFiles)) {
        const source = join(runtime, 'dist', name);
        await copyFile(source, join(output, runtimeFolder, name));
        // The server sends this to whoever takes gzip: 6.7 MB in the place of 26.8 for a first visit.
        await writeFile(join(output, runtimeFolder, `${name}.gz`), await promisify(gzip)(await readFile(source), { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  root: here,
  // `splitllm serve` beside it: the page of the development server asks this one for everything that is not a file of the page.
  server: { proxy: { '/v1': { target: 'http://127.0.0.1:8000', ws: true }, '/bundle': 'http://127.0.0.1:8000' } },
  define: { __ORT_FOLDER__: JSON.stringify(`/${runtimeFolder}/`) },
  // The first condition keeps the wasm out of the script bundle; the others are vite's own.
  resolve: { conditions: ['onnxruntime-web-use-extern-wasm', 'module', 'browser', 'development|production'] },
  plugins: [onnxRuntimeFiles()],
  worker: { format: 'es' },
  build: {
    outDir: output,
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0,
    // How long plugins take is no concern of those who type `make demo`.
    rolldownOptions: { input: join(here, 'index.html'), checks: { bundlerTimings: false } },
  },
  test: { root: here, include: ['test/**/*.test.ts'], environment: 'node' },
});
