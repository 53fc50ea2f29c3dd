/** The store in the Cache API, for browsers without a private file system. It keeps whole files only, so nothing is resumed. */
import type { Bytes, Draft, Store, StoredFile } from './store';

const CACHE_NAME = 'splitllm-weights-1';

export class CacheStore implements Store {
  readonly kind = 'cache';

  private constructor(private readonly cache: Cache) {}

  /** Null where the browser has none. */
  static async open(): Promise<CacheStore | null> {
    try {
      return new CacheStore(await caches.open(CACHE_NAME));
    } catch {
      return null;
    }
  }

  async get(hash: string): Promise<Bytes | null> {
    try {
      const response = await this.cache.match(keyOf(hash));
      return response === undefined ? null : new Uint8Array(await response.arrayBuffer());
    } catch {
      return null;
    }
  }

  draft(hash: string): Promise<Draft> {
    return Promise.resolve({
      resume: () => 0,
      append: () => undefined,
      keep: (whole) => this.cache.put(keyOf(hash), new Response(whole, { headers: { 'content-length': String(whole.length) } })),
      leave: () => undefined,
      drop: () => Promise.resolve(),
    });
  }

  /** The Cache API lists in the order of insertion. */
  async list(): Promise<readonly StoredFile[]> {
    const files: StoredFile[] = [];
    for (const request of await this.cache.keys()) {
      const response = await this.cache.match(request);
      const hash = request.url.slice(request.url.lastIndexOf('/') + 1);
      if (response !== undefined) files.push({ hash, bytes: Number(response.headers.get('content-length')), complete: true });
    }
    return files;
  }

  async remove(hash: string): Promise<void> {
    await this.cache.delete(keyOf(hash));
  }
}

/** Never fetched: the Cache API wants a URL for a key, and a whole one in the worker of an embedded engine, which is a `blob:`. */
const keyOf = (hash: string): string => `https://bundle.invalid/sha256/${hash}`;
