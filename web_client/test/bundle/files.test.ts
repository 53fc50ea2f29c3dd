import { createHash } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { EmbeddingTable } from '../../src/bundle/embedding';
import { BundleFiles } from '../../src/bundle/files';
import { KeptFiles } from '../../src/bundle/kept';
import { readManifest } from '../../src/bundle/manifest';
import type { Manifest } from '../../src/bundle/manifest';
import { BundleError } from '../../src/protocol/errors';
import { stubCaches, stubOpfs } from './storage';

const digest = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();
const hex = (bytes: Uint8Array): string => digest(bytes).toString('hex');

/** A server of these files, with Range; what was asked of it. */
function serve(files: Record<string, Uint8Array>): string[] {
  const asked: string[] = [];
  vi.stubGlobal('fetch', (url: string, { headers = {}, signal }: { headers?: Record<string, string>; signal?: AbortSignal | null } = {}) => {
    const name = url.slice(url.lastIndexOf('/') + 1);
    const bytes = files[name];
    signal?.throwIfAborted();
    asked.push(headers.range === undefined ? name : `${name} ${headers.range}`);
    if (bytes === undefined) return Promise.resolve(new Response(null, { status: 404 }));
    const range = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? '');
    const body = range === null ? bytes : bytes.subarray(Number(range[1]), Number(range[2]) + 1);
    return Promise.resolve(new Response(Uint8Array.from(body), { status: range === null ? 200 : 206 }));
  });
  return asked;
}

const entries = (files: Record<string, Uint8Array>): Manifest['files'] =>
  Object.fromEntries(Object.entries(files).map(([name, bytes]) => [name, { size: bytes.length, sha256: hex(bytes) }]));

/** Files of a bundle that lists these, in a browser as the test has made it. */
async function filesOf(listed: Record<string, Uint8Array>, onFull = (): void => undefined): Promise<BundleFiles> {
  return new BundleFiles({ server: 'http://server' }, entries(listed), await KeptFiles.open(true, onFull));
}

/** A server whose connection breaks off after so many bytes. */
function serveHalf(bytes: Uint8Array, length: number): void {
  vi.stubGlobal('fetch', () => {
    let sent = false;
    const body = new ReadableStream({
      pull: (controller) => {
        if (sent) controller.error(new TypeError('network error'));
        else controller.enqueue(Uint8Array.from(bytes.subarray(0, length)));
        sent = true;
      },
    });
    return Promise.resolve(new Response(body));
  });
}

const damaged = (code: string): unknown => expect.objectContaining({ name: 'BundleError', code });

beforeEach(() => {
  // Node 20 has no navigator; a browser always has.
  vi.stubGlobal('navigator', {});
});

afterEach(() => {
  vi.unstubAllGlobals();
});

test('a file is given out only when its size and hash are those of the manifest', async () => {
  const right = { a: Uint8Array.of(1, 2, 3) };
  const files = (): Promise<BundleFiles> => filesOf(right);
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

describe.each([
  ['the private file system', stubOpfs],
  ['the Cache API', stubCaches],
])('kept in %s', (_name, stub) => {
  const right = { a: Uint8Array.of(1, 2, 3) };

  test('a second visit downloads nothing, and a damaged file is found out and replaced', async () => {
    const disk = stub();
    const asked = serve(right);
    await (await filesOf(right)).read('a');
    await (await filesOf(right)).read('a');
    expect(asked).toEqual(['a']);
    for (const name of disk.files.keys()) disk.files.set(name, Uint8Array.of(9, 9, 9));
    await expect((await filesOf(right)).read('a')).resolves.toEqual(right.a);
    await expect((await filesOf(right)).read('a')).resolves.toEqual(right.a);
    expect(asked).toEqual(['a', 'a']);
  });

  test('a file has its hash for a name, so another name or another bundle does not download it again', async () => {
    const disk = stub();
    const asked = serve(right);
    await (await filesOf(right)).read('a');
    await expect((await filesOf({ b: right.a })).read('b')).resolves.toEqual(right.a);
    expect([asked, [...disk.files.keys()]]).toEqual([['a'], [hex(right.a)]]);
  });

  test('nothing is kept of what is not the file that was promised', async () => {
    const disk = stub();
    serve({ a: Uint8Array.of(1, 2, 4) });
    await expect((await filesOf(right)).read('a')).rejects.toThrow(damaged('bundle_damaged'));
    expect(disk.files.size).toBe(0);
  });

  test('who wants nothing kept any more has nothing, also of what is just being downloaded', async () => {
    const disk = stub();
    serve(right);
    const kept = await KeptFiles.open(true, () => undefined);
    const files = new BundleFiles({ server: 'http://server' }, entries(right), kept);
    const reading = files.read('a', () => void kept.setKeep(false));
    await expect(reading).resolves.toEqual(right.a);
    await vi.waitFor(() => {
      expect([...disk.files.keys()]).toEqual([]);
    });
  });

  test('of two words about keeping the last one holds', async () => {
    stub();
    const kept = await KeptFiles.open(true, () => undefined);
    const { kind } = kept;
    await Promise.all([kept.setKeep(false), kept.setKeep(true)]);
    expect(kept.kind).toBe(kind);
    await Promise.all([kept.setKeep(false), kept.setKeep(true), kept.setKeep(false)]);
    expect(kept.kind).toBe('memory');
  });

  test('two tabs that want a file at the same time download it once', async () => {
    stub();
    const asked = serve(right);
    const [one, other] = [await filesOf(right), await filesOf(right)];
    await expect(Promise.all([one.read('a'), other.read('a')])).resolves.toEqual([right.a, right.a]);
    expect(asked).toEqual(['a']);
  });

  test('former bundles stay while there is room, and go, the oldest first, when it is needed', async () => {
    const disk = stub();
    const former = { f: Uint8Array.of(4, 4, 4), g: Uint8Array.of(5, 5, 5) };
    serve({ ...former, ...right, b: Uint8Array.of(6, 6, 6) });
    const old = await filesOf(former);
    await old.read('f');
    await old.read('g');
    let full = 0;
    const now = await filesOf({ ...right, b: Uint8Array.of(6, 6, 6) }, () => (full += 1));
    await now.read('a');
    expect(disk.files.size).toBe(3);
    disk.room = 10;
    await now.read('b');
    expect(new Set(disk.files.keys())).toEqual(new Set([former.g, right.a, Uint8Array.of(6, 6, 6)].map(hex)));
    expect(full).toBe(0);
  });

  test('where the storage is full the file is given out all the same, and that is said once', async () => {
    const disk = stub(2);
    serve({ ...right, b: Uint8Array.of(6, 6, 6) });
    let full = 0;
    const files = await filesOf({ ...right, b: Uint8Array.of(6, 6, 6) }, () => (full += 1));
    await expect(files.read('a')).resolves.toEqual(right.a);
    await expect(files.read('b')).resolves.toEqual(Uint8Array.of(6, 6, 6));
    expect([full, [...disk.files.values()].filter((bytes) => bytes.length > 0)]).toEqual([1, []]);
  });

  test('sizes tell this bundle from others, and clearing leaves nothing', async () => {
    const disk = stub();
    serve({ ...right, f: Uint8Array.of(4, 4) });
    const kept = await KeptFiles.open(true, () => undefined);
    await new BundleFiles({ server: 'http://server' }, entries({ f: Uint8Array.of(4, 4) }), kept).read('f');
    const files = new BundleFiles({ server: 'http://server' }, entries({ ...right, b: Uint8Array.of(7) }), kept);
    await files.read('a');
    await expect(kept.sizes()).resolves.toEqual({ bytes: 3, otherBytes: 2, partialBytes: 0 });
    await expect(files.missingBytes(['a', 'b'])).resolves.toBe(1);
    await kept.clear();
    expect(disk.files.size).toBe(0);
    await kept.setKeep(false);
    await expect(files.read('a')).resolves.toEqual(right.a);
    expect([kept.kind, disk.files.size]).toEqual(['memory', 0]);
  });
});

describe('a download that broke off', () => {
  const right = { a: Uint8Array.from({ length: 10 }, (_, index) => index) };

  test('goes on by Range where it ended, also on another visit', async () => {
    const disk = stubOpfs();
    serveHalf(right.a, 4);
    await expect((await filesOf(right)).read('a')).rejects.toThrow(damaged('bundle_unreachable'));
    const asked = serve(right);
    const received: number[] = [];
    await expect((await filesOf(right)).read('a', (bytes) => received.push(bytes))).resolves.toEqual(right.a);
    expect([asked, received, [...disk.files.keys()]]).toEqual([['a bytes=4-9'], [4, 6], [hex(right.a)]]);
  });

  test('and what it left is damaged: all of it is downloaded again', async () => {
    const disk = stubOpfs();
    serveHalf(right.a, 4);
    await expect((await filesOf(right)).read('a')).rejects.toThrow(damaged('bundle_unreachable'));
    for (const name of disk.files.keys()) disk.files.set(name, Uint8Array.of(9, 9));
    const asked = serve(right);
    let received = 0;
    await expect((await filesOf(right)).read('a', (bytes) => (received += bytes))).resolves.toEqual(right.a);
    expect([asked, received]).toEqual([['a bytes=2-9', 'a'], 10]);
  });

  test('a pause ends it with its reason, and what is kept is read all the same', async () => {
    stubOpfs();
    serve(right);
    const files = await filesOf({ ...right, b: Uint8Array.of(1) });
    await files.read('a');
    const paused = AbortSignal.abort(new BundleError('download_paused', 'Paused.'));
    await expect(files.read('a', undefined, paused)).resolves.toEqual(right.a);
    await expect(files.read('b', undefined, paused)).rejects.toThrow(damaged('download_paused'));
  });
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
  const embedding = await EmbeddingTable.open(await filesOf(right), manifest);
  await expect(embedding.rows([4, 0, 1, 4])).resolves.toEqual(Float32Array.of(8, 9, 0, 1, 2, 3, 8, 9));
  await embedding.rows([0, 4]);
  expect(asked).toEqual(['hashes', 'embed bytes=32-39', 'embed bytes=0-15']);
  await expect(embedding.rows([5])).rejects.toThrow(damaged('unknown_token'));
  serve({ ...right, embed: new Uint8Array(table.length) });
  await expect(embedding.rows([2])).rejects.toThrow(damaged('bundle_damaged'));
  serve(right);
  await expect(embedding.rows([2])).resolves.toEqual(Float32Array.of(4, 5));
});

test('chunks of the embedding are kept as well, and belong to the bundle', async () => {
  const table = new Uint8Array(Float32Array.of(1, 2).buffer);
  const hashes = new Uint8Array(Buffer.concat([digest(table.subarray(0, 4)), digest(table.subarray(4))]));
  const right = { embed: table, hashes };
  const manifest = { model: { hidden_size: 1, vocab_size: 2 }, embed: { float32: { file: 'embed', row_bytes: 4, rows_per_chunk: 1, hashes: 'hashes' } } } as unknown as Manifest;
  stubOpfs();
  serve(right);
  await (await EmbeddingTable.open(await filesOf(right), manifest)).prefetch(new AbortController().signal);
  const asked = serve({});
  const kept = await KeptFiles.open(true, () => undefined);
  const embedding = await EmbeddingTable.open(new BundleFiles({ server: 'http://server' }, entries(right), kept), manifest);
  await expect(embedding.rows([0, 1])).resolves.toEqual(Float32Array.of(1, 2));
  expect(asked).toEqual([]);
  await expect(kept.sizes()).resolves.toMatchObject({ bytes: 64 + 8, otherBytes: 0 });
});

test('storage that fails in any way stops nothing', async () => {
  const right = { a: Uint8Array.of(1, 2, 3) };
  serve(right);
  const gone = (): Promise<never> => Promise.reject(new DOMException('Gone.', 'InvalidStateError'));
  vi.stubGlobal('caches', { open: () => Promise.resolve({ match: gone, put: gone, keys: gone, delete: gone }) });
  const kept = await KeptFiles.open(true, () => undefined);
  await expect(new BundleFiles({ server: 'http://server' }, entries(right), kept).read('a')).resolves.toEqual(right.a);
  await expect(kept.sizes()).resolves.toEqual({ bytes: 0, otherBytes: 0, partialBytes: 0 });
  await kept.clear();
});

test('a server that is away behind its proxy is one that is out of reach, which is tried again', async () => {
  for (const [status, code] of [[502, 'bundle_unreachable'], [503, 'bundle_unreachable'], [403, 'bundle_missing']] as const) {
    vi.stubGlobal('fetch', () => Promise.resolve(new Response('Try again.', { status })));
    await expect((await filesOf({ a: Uint8Array.of(1) })).read('a')).rejects.toThrow(damaged(code));
  }
});

test('the rest of a file is not downloaded from a server that does not give parts', async () => {
  const table = Uint8Array.of(1, 2, 3);
  let cancelled = 0;
  vi.stubGlobal('fetch', () => Promise.resolve(new Response(new ReadableStream({ cancel: () => void (cancelled += 1) }))));
  await expect((await filesOf({ a: table })).readRange('a', 1, 1, hex(table.subarray(1, 2)))).rejects.toThrow(damaged('bundle_range'));
  expect(cancelled).toBe(1);
});

test('a download that cannot be read back is begun anew', async () => {
  const right = { a: Uint8Array.of(1, 2, 3) };
  stubOpfs().unreadable = true;
  serve(right);
  await expect((await filesOf(right)).read('a')).resolves.toEqual(right.a);
});

test('what is no manifest is refused with the reason', () => {
  const bytes = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
  expect(() => readManifest(Uint8Array.of(0xff))).toThrow(damaged('bundle_manifest'));
  expect(() => readManifest(bytes({ format: 'splitllm-bundle', format_version: 2 }))).toThrow(/format version is not 1/);
  expect(() => readManifest(bytes({ format: 'splitllm-bundle', format_version: 1 }))).toThrow(damaged('bundle_manifest'));
});

test('a key goes along in a header, with parts of files too, and what the server says without one is told', async () => {
  const asked: unknown[] = [];
  vi.stubGlobal('fetch', (url: string, { headers }: { headers: unknown }) => {
    asked.push([url, headers]);
    return Promise.resolve(new Response(null, { status: 401 }));
  });
  const files = new BundleFiles({ server: 'http://server', apiKey: 'secret' }, { a: { size: 4, sha256: 'b'.repeat(64) } }, await KeptFiles.open(false, () => undefined));
  await expect(files.read('a')).rejects.toEqual(damaged('api_key'));
  await expect(files.readRange('a', 2, 2, 'c'.repeat(64))).rejects.toEqual(damaged('api_key'));
  expect(asked).toEqual([
    ['http://server/bundle/a', { authorization: 'Bearer secret' }],
    ['http://server/bundle/a', { authorization: 'Bearer secret', range: 'bytes=2-3' }],
  ]);
});
