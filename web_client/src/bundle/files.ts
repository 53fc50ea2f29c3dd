/** The files of a bundle: fetched once, verified always, kept for the next visit. */
import { BundleError } from '../protocol/errors';
import { sha256 } from './digest';
import { fetchInto } from './fetching';
import type { Piece, Received, Source } from './fetching';
import type { KeptFiles } from './kept';
import { alone } from './locks';
import type { Manifest } from './manifest.generated';
import type { Bytes } from './store';

type FileEntry = Manifest['files'][string];

export class BundleFiles {
  constructor(
    private readonly source: Source,
    private readonly files: Manifest['files'],
    private readonly kept: KeptFiles,
  ) {
    kept.serve(Object.values(files).map((entry) => entry.sha256));
  }

  /** Throws `bundle_missing` when the manifest does not list the file. */
  entry(name: string): FileEntry {
    // Own members only: a manifest may not reach `Object.prototype` by a file's name.
    const entry = Object.hasOwn(this.files, name) ? this.files[name] : undefined;
    if (entry === undefined) throw new BundleError('bundle_missing', `The bundle does not list ${name}; its operator must export it again.`);
    return entry;
  }

  /**
   * The bytes of a file, of the size and with the hash that the manifest promises. `received` hears of bytes that need not be
   * downloaded any more, too. `signal` ends a download, not the reading of what is kept, and its reason is thrown.
   */
  async read(name: string, received?: Received, signal?: AbortSignal): Promise<Bytes> {
    const { size, sha256: hash } = this.entry(name);
    return this.obtain({ source: this.source, name, start: 0, size, whole: true }, hash, received, signal);
  }

  /** `size` bytes of a file from `start` on, which must have the hash given. */
  async readRange(name: string, start: number, size: number, hash: string, signal?: AbortSignal): Promise<Bytes> {
    return this.obtain({ source: this.source, name, start, size, whole: false }, hash, undefined, signal);
  }

  /** Without a check, for where the browser offers no hash and no weights are loaded. */
  async readUnverified(name: string): Promise<Bytes> {
    const { size } = this.entry(name);
    const bytes = new Uint8Array(size);
    await fetchInto({ source: this.source, name, start: 0, size, whole: true }, bytes, 0, () => Promise.resolve());
    return bytes;
  }

  /** Hashes of this bundle's file ranges, which the manifest does not list. */
  addRanges(hashes: readonly string[]): void {
    this.kept.alsoServe(hashes);
  }

  /** Bytes of these files that are not kept here. */
  async missingBytes(names: readonly string[]): Promise<number> {
    const entries = names.map((name) => this.entry(name));
    const here = await this.kept.having(entries.map((entry) => entry.sha256));
    return entries.reduce((sum, { sha256: hash, size }) => sum + (here.has(hash) ? 0 : size), 0);
  }

  private async obtain(piece: Piece, hash: string, received: Received = () => undefined, signal?: AbortSignal): Promise<Bytes> {
    const fromStore = async (): Promise<Bytes | null> => {
      const bytes = await this.verifiedFromStore(hash);
      if (bytes !== null) received(piece.size);
      return bytes;
    };
    return (
      (await fromStore()) ??
      // Another tab may have downloaded it while this one waited.
      alone(`splitllm-weights ${hash}`, signal, async () => (await fromStore()) ?? this.download(piece, hash, received, signal))
    );
  }

  private async download(piece: Piece, hash: string, received: Received, signal?: AbortSignal): Promise<Bytes> {
    const draft = await this.kept.draft(hash, piece.size);
    const bytes = new Uint8Array(piece.size);
    const resumed = draft.resume(bytes);
    try {
      received(resumed);
      await fetchInto(
        piece,
        bytes,
        resumed,
        async (part) => {
          received(part.length);
          await draft.append(part);
        },
        signal,
      );
    } catch (error) {
      draft.leave();
      throw error;
    }
    if ((await sha256(bytes)) === hash) {
      await draft.keep(bytes);
      return bytes;
    }
    await draft.drop();
    // What an earlier visit left may be what is damaged.
    if (resumed > 0) {
      received(-piece.size);
      return this.download(piece, hash, received, signal);
    }
    throw new BundleError('bundle_damaged', `${piece.name} is not the file that the manifest names; nothing of it was used. Reload the page, or tell the server's operator.`);
  }

  /** What lies in the store is checked as if it came from the network: a disk forgets, and other pages of this origin write too. */
  private async verifiedFromStore(hash: string): Promise<Bytes | null> {
    const bytes = await this.kept.get(hash);
    return bytes !== null && (await sha256(bytes)) === hash ? bytes : null;
  }
}
