/** The files of a bundle: fetched once, verified always, kept for the next visit. */
import { BundleError } from '../protocol/errors';
import type { HashCache } from './cache';
import { sha256 } from './digest';
import { fetchRange, fetchWhole } from './fetching';
import type { Received } from './fetching';
import type { Manifest } from './manifest.generated';

type FileEntry = Manifest['files'][string];

export class BundleFiles {
  constructor(
    private readonly server: string,
    private readonly files: Manifest['files'],
    private readonly cache: HashCache,
  ) {}

  /** Throws `bundle_missing` when the manifest does not list the file. */
  entry(name: string): FileEntry {
    // Own members only: a manifest may not reach `Object.prototype` by a file's name.
    const entry = Object.hasOwn(this.files, name) ? this.files[name] : undefined;
    if (entry === undefined) throw new BundleError('bundle_missing', `The bundle does not list ${name}; its operator must export it again.`);
    return entry;
  }

  /** The bytes of a file, of the size and with the hash that the manifest promises. */
  async read(name: string, received: Received = () => undefined): Promise<Uint8Array<ArrayBuffer>> {
    const { size, sha256: hash } = this.entry(name);
    const kept = await this.verifiedFromCache(hash);
    if (kept !== null) {
      received(size);
      return kept;
    }
    const bytes = await fetchWhole(this.url(name), size, received);
    await this.verify(name, bytes, hash);
    await this.cache.put(hash, bytes);
    return bytes;
  }

  /** `size` bytes of a file from `start` on, which must have the hash given. */
  async readRange(name: string, start: number, size: number, hash: string): Promise<Uint8Array<ArrayBuffer>> {
    const kept = await this.verifiedFromCache(hash);
    if (kept !== null) return kept;
    const bytes = await fetchRange(this.url(name), start, size);
    await this.verify(name, bytes, hash);
    await this.cache.put(hash, bytes);
    return bytes;
  }

  /** Drop what the cache holds of other bundles; `parts` are the hashes of this one's file ranges, which the manifest does not list. */
  async dropOthers(parts: readonly string[]): Promise<void> {
    await this.cache.keepOnly(new Set([...Object.values(this.files).map((entry) => entry.sha256), ...parts]));
  }

  /** Without a check, for where the browser offers no hash and no weights are loaded. */
  async readUnverified(name: string): Promise<Uint8Array<ArrayBuffer>> {
    return fetchWhole(this.url(name), this.entry(name).size, () => undefined);
  }

  /** What lies in the cache is checked as if it came from the network: a disk forgets, and other pages of this origin write too. */
  private async verifiedFromCache(hash: string): Promise<Uint8Array<ArrayBuffer> | null> {
    const bytes = await this.cache.get(hash);
    return bytes !== null && (await sha256(bytes)) === hash ? bytes : null;
  }

  private async verify(name: string, bytes: Uint8Array<ArrayBuffer>, hash: string): Promise<void> {
    if ((await sha256(bytes)) !== hash) {
      throw new BundleError('bundle_damaged', `${name} is not the file that the manifest names; nothing of it was used. Reload the page, or tell the server's operator.`);
    }
  }

  private url(name: string): string {
    return `${this.server}/bundle/${name}`;
  }
}
