import { createReadStream } from 'node:fs';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import ts from 'typescript';
import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';
import { PROTOCOL_VERSION } from './src/protocol/version.ts';

const here = fileURLToPath(new URL('.', import.meta.url));
const output = join(here, '../backend/splitllm/_page');
const runtime = join(here, 'node_modules/onnxruntime-web');
const { version } = JSON.parse(await readFile(join(runtime, 'package.json'), 'utf8')) as { version: string };

/** Where other pages find the engine; what it is made of lies in `assets/`, under names that never change their content. */
const library = `engine/v${String(PROTOCOL_VERSION)}`;

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

/** The library's types as one file beside it: declarations of modules that only import each other, without those imports. */
function libraryTypes(): Plugin {
  return {
    name: 'library-types',
    async writeBundle() {
      const host = { ...ts.sys, onUnRecoverableConfigFileDiagnostic: (problem: ts.Diagnostic) => this.error(ts.flattenDiagnosticMessageText(problem.messageText, ' ')) };
      const config = ts.getParsedCommandLineOfConfigFile(join(here, 'tsconfig.library.json'), {}, host);
      const parts: string[] = [];
      ts.createProgram(config?.fileNames ?? [], config?.options ?? {}).emit(undefined, (name, text) => {
        if (!/(keys|mailbox|worker)\.d\.ts$/.test(name)) parts.push(text);
      }, undefined, true);
      const lines = parts.join('').split('\n').filter((line) => !/^import |^export .*from '|^export \{.*\};$/.test(line));
      // Errors come out of the worker with their codes, not with their classes.
      const text = lines.join('\n').replace(/^export declare class \w+ extends SplitLLMError \{\n\}\n/gm, '');
      await writeFile(join(output, `${library}.d.ts`), text);
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
  plugins: [onnxRuntimeFiles(), libraryTypes()],
  worker: {
    format: 'es',
    // @cfworker/json-schema takes its base URI from where it runs, which in the worker of another origin's page is a `blob:` that
    // makes no URL with its origin before it. No schema here refers to another document.
    rolldownOptions: { transform: { define: { 'self.location.pathname': JSON.stringify('/') } } },
  },
  build: {
    outDir: output,
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0,
    // How long plugins take is no concern of those who type `make demo`.
    rolldownOptions: {
      input: { index: join(here, 'index.html'), [library]: join(here, 'src/client/index.ts') },
      // The library is a name that others write down: it keeps its exports, and its name as long as the protocol keeps its version.
      preserveEntrySignatures: 'exports-only',
      output: { entryFileNames: ({ name }) => (name === library ? `${library}.js` : 'assets/[name]-[hash].js') },
      checks: { bundlerTimings: false },
    },
  },
  test: { root: here, include: ['test/**/*.test.ts'], environment: 'node' },
});
