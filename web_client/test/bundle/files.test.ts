import { createHash } from 'node:crypto';
import { afterEach, expect, test, vi } from 'vitest';
import { HashCache } from '../../src/bundle/cache';
import { EmbeddingTable } from '../../src/bundle/embedding';
import { BundleFiles } from '../../src/bundle/files';
import { readManifest } from '../../src/bundle/manifest';
import type { Manifest } from '../../src/bundle/manifest';

const digest = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();
const hex = (bytes: Uint8Array): string => digest(bytes).toString('hex');

/** A server of these files, with Range; what was asked of it. */
function serve(files: Record<string, Uint8Array>): string[] {
  const asked: string[] = [];
  vi.stubGlobal('fetch', (url: string, { headers = {} }: { headers?: Record<string, string> } = {}) => {
    const name = url.slice(url.lastIndexOf('/') + 1);
    const bytes = files[name];
    asked.push(headers.range === undefined ? name : `${name} ${headers.range}`);
    if (bytes === undefined) return Promise.resolve(new Response(null, { status: 404 }));
    const range = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? '');
    const body = range === null ? bytes : bytes.subarray(Number(range[1]), Number(range[2]) + 1);
    return Promise.resolve(new Response(Uint8Array.from(body), { status: range === null ? 200 : 206 }));
  });
  return asked;
}

/** The browser's Cache API, as far as it is used. */
function stubCaches(): Map<string, Uint8Array<ArrayBuffer>> {
  const kept = new Map<string, Uint8Array<ArrayBuffer>>();
  const cache = {
    match: (key: string) => Promise.resolve(kept.has(key) ? new Response(kept.get(key)) : undefined),
    put: async (key: string, response: Response) => kept.set(key, new Uint8Array(await response.arrayBuffer())),
    keys: () => Promise.resolve([...kept.keys()].map((key) => ({ url: `http://server${key}`, key }))),
    delete: ({ key }: { key: string }) => Promise.resolve(kept.delete(key)),
  };
  vi.stubGlobal('caches', { open: () => Promise.resolve(cache) });
  return kept;
}

const entries = (files: Record<string, Uint8Array>): Manifest['files'] =>
  Object.fromEntries(Object.entries(files).map(([name, bytes]) => [name, { size: bytes.length, sha256: hex(bytes) }]));

const damaged = (code: string): unknown => expect.objectContaining({ name: 'BundleError', code });

afterEach(() => {
  vi.unstubAllGlobals();
});

test('a file is given out only when its size and hash are those of the manifest', async () => {
  const right = { a: Uint8Array.of(1, 2, 3) };
  const listed = entries(right);
  const files = async (): Promise<BundleFiles> => new BundleFiles('http://server', listed, await HashCache.open());
  const received: number[] = [];
  serve(right);
  await expect((await files()).read('a', (bytes) => received.push(bytes))).resolves.toEqual(right.a);
  expect(received.reduce((sum, bytes) => sum + bytes, 0)).toBe(3);
  serve({ a: Uint8Array.of(1, 2, 4) });
  await expect((await files()).read('a')).rejects.toThrow(damaged('bundle_damaged'));
  serve({ a: Uint8Array.of(1, 2, 3, 4) });
  await expect((await files()).read('a')).rejects.toThrow(damaged('bundle_size'));
  serve({ a: Uint8Array.of(1, 2) });
  await expect((await files()).read('a')).rejects.toThrow(damaged('bundle_size'));
  serve({});
  await expect((await files()).read('a')).rejects.toThrow(damaged('bundle_missing'));
  await expect((await files()).read('toString')).rejects.toThrow(damaged('bundle_missing'));
});

test('a second visit downloads nothing, and a spoilt cache is found out', async () => {
  const right = { a: Uint8Array.of(1, 2, 3) };
  const kept = stubCaches();
  const asked = serve(right);
  const read = async (): Promise<Uint8Array> => new BundleFiles('http://server', entries(right), await HashCache.open()).read('a');
  await read();
  await read();
  expect(asked).toEqual(['a']);
  for (const key of kept.keys()) kept.set(key, Uint8Array.of(9, 9, 9));
  await expect(read()).resolves.toEqual(right.a);
  expect(asked).toEqual(['a', 'a']);
});

test('embedding rows are read by chunk, each chunk once and verified by its own hash', async () => {
  const columns = 2;
  const vocabulary = 5;
  const table = new Uint8Array(Float32Array.from({ length: vocabulary * columns }, (_, index) => index).buffer);
  const chunkBytes = 2 * columns * 4;
  const hashes = Buffer.concat([0, 1, 2].map((index) => digest(table.subarray(index * chunkBytes, (index + 1) * chunkBytes))));
  const right = { embed: table, hashes: new Uint8Array(hashes) };
  const manifest = {
    model: { hidden_size: columns, vocab_size: vocabulary },
    embed: { float32: { file: 'embed', row_bytes: columns * 4, rows_per_chunk: 2, hashes: 'hashes' } },
  } as unknown as Manifest;
  const asked = serve(right);
  const embedding = await EmbeddingTable.open(new BundleFiles('http://server', entries(right), await HashCache.open()), manifest);
  await expect(embedding.rows([4, 0, 1, 4])).resolves.toEqual(Float32Array.of(8, 9, 0, 1, 2, 3, 8, 9));
  await embedding.rows([0, 4]);
  expect(asked).toEqual(['hashes', 'embed bytes=32-39', 'embed bytes=0-15']);
  await expect(embedding.rows([5])).rejects.toThrow(damaged('unknown_token'));
  serve({ ...right, embed: new Uint8Array(table.length) });
  await expect(embedding.rows([2])).rejects.toThrow(damaged('bundle_damaged'));
  serve(right);
  await expect(embedding.rows([2])).resolves.toEqual(Float32Array.of(4, 5));
});

test('the cache drops what belongs to another bundle, and nothing of this one', async () => {
  const table = new Uint8Array(Float32Array.of(1, 2).buffer);
  const hashes = new Uint8Array(Buffer.concat([digest(table.subarray(0, 4)), digest(table.subarray(4))]));
  const right = { embed: table, hashes, block: Uint8Array.of(1, 2, 3) };
  const manifest = { model: { hidden_size: 1, vocab_size: 2 }, embed: { float32: { file: 'embed', row_bytes: 4, rows_per_chunk: 1, hashes: 'hashes' } } } as unknown as Manifest;
  const kept = stubCaches();
  serve({ ...right, former: Uint8Array.of(4) });
  await new BundleFiles('http://server', entries({ former: Uint8Array.of(4) }), await HashCache.open()).read('former');
  const files = new BundleFiles('http://server', entries(right), await HashCache.open());
  await files.read('block');
  const embedding = await EmbeddingTable.open(files, manifest);
  await embedding.prefetch();
  expect(kept.size).toBe(5);
  await files.dropOthers(embedding.chunkHashes);
  expect(kept.size).toBe(4);
  const asked = serve({});
  await (await EmbeddingTable.open(files, manifest)).rows([0, 1]);
  await files.read('block');
  expect(asked).toEqual([]);
});

test('storage that cannot be tidied stops nothing', async () => {
  vi.stubGlobal('caches', { open: () => Promise.resolve({ keys: () => Promise.reject(new Error('gone')) }) });
  await new BundleFiles('http://server', {}, await HashCache.open()).dropOthers([]);
});

test('what is no manifest is refused with the reason', () => {
  const bytes = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
  expect(() => readManifest(Uint8Array.of(0xff))).toThrow(damaged('bundle_manifest'));
  expect(() => readManifest(bytes({ format: 'splitllm-bundle', format_version: 2 }))).toThrow(/format version is not 1/);
  expect(() => readManifest(bytes({ format: 'splitllm-bundle', format_version: 1 }))).toThrow(damaged('bundle_manifest'));
});
