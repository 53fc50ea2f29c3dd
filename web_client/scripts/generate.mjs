// Types from the JSON Schemas in protocol/. `--check` writes nothing and fails when a generated file is stale.
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { compile } from 'json-schema-to-typescript';

const command = 'npm run generate';
const outputs = [
  { schema: 'messages', name: 'Message', target: 'src/protocol/messages.generated.ts' },
  { schema: 'manifest', name: 'Manifest', target: 'src/bundle/manifest.generated.ts' },
];

const root = new URL('..', import.meta.url);
const onlyCheck = process.argv.includes('--check');
const stale = [];

for (const { schema, name, target } of outputs) {
  const definition = JSON.parse(await readFile(new URL(`../protocol/schemas/${schema}.schema.json`, root), 'utf8'));
  delete definition.title; // it would name the root type
  const text = await compile(definition, name, {
    bannerComment: `/* Generated from protocol/schemas/${schema}.schema.json; mend with \`${command}\`. */`,
    additionalProperties: false,
    ignoreMinAndMaxItems: true,
    enableConstEnums: false,
    style: { singleQuote: true, printWidth: 120 },
  });
  const path = new URL(target, root);
  const present = await readFile(path, 'utf8').catch(() => null);
  if (present === text) continue;
  if (onlyCheck) stale.push(target);
  else await writeFile(path, text);
}

if (stale.length > 0) {
  process.stderr.write(`stale: ${stale.join(', ')}; run \`${command}\` in ${fileURLToPath(root)}\n`);
  process.exitCode = 1;
}
