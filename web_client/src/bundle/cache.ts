/** Verified bytes kept in the browser under their own hash, so that a second visit downloads no weights. */

const CACHE_NAME = 'splitllm-bundle-1';

export class HashCache {
  private constructor(private readonly cache: Cache | null) {}

  /** A cache that keeps nothing where the browser offers none (an insecure page, a private window). */
  static async open(): Promise<HashCache> {
    try {
      return new HashCache(await caches.open(CACHE_NAME));
    } catch {
      return new HashCache(null);
    }
  }

  async get(hash: string): Promise<Uint8Array<ArrayBuffer> | null> {
    const response = await this.cache?.match(keyOf(hash));
    return response === undefined ? null : new Uint8Array(await response.arrayBuffer());
  }

  async put(hash: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    try {
      await this.cache?.put(keyOf(hash), new Response(bytes));
    } catch {
      // The disk is full or the quota is used up: the next visit downloads again, this one goes on.
    }
  }

  /**
   * Drop what no hash in `wanted` names: bundles that are served no more. Safe beside a tab that still has such a bundle: what is
   * gone from here is downloaded again, and a tab of a former bundle cannot open a session with it anyway.
   */
  async keepOnly(wanted: ReadonlySet<string>): Promise<void> {
    try {
      for (const request of (await this.cache?.keys()) ?? []) {
        const hash = request.url.slice(request.url.lastIndexOf('/') + 1);
        if (!wanted.has(hash)) await this.cache?.delete(request);
      }
    } catch {
      // The browser takes its storage back while we tidy it: then there is nothing left to tidy.
    }
  }
}

/** Never fetched: the Cache API wants a URL for a key. */
const keyOf = (hash: string): string => `/bundle/sha256/${hash}`;
