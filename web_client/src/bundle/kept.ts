/** The policy of the store: what is kept, what makes room for it, and that nothing which happens on a disk stops a chat. */
import { openStore } from './store';
import type { Bytes, Draft, Store, StoredFile } from './store';

export interface KeptSizes {
  /** Bytes of the bundle that is served now. */
  readonly bytes: number;
  /** Bytes of other models and of former versions; they go when room is needed. */
  readonly otherBytes: number;
  /** Bytes of downloads that are not complete. */
  readonly partialBytes: number;
}

/** What a download writes to; none of it throws, whatever happens on the disk. */
export type SafeDraft = Omit<Draft, 'append'> & { append(part: Uint8Array): Promise<void> };

export class KeptFiles {
  /** Hashes of the bundle that is served now. */
  private readonly wanted = new Set<string>();
  private full = false;
  /** What was asked for last; the store follows. */
  private keeping = false;

  /** `onFull` is called once, when there is no room for what should be kept. */
  private constructor(
    private store: Store | null,
    private readonly onFull: () => void,
  ) {}

  /** Where `keep` is false everything stays in memory. */
  static async open(keep: boolean, onFull: () => void): Promise<KeptFiles> {
    return new KeptFiles(keep ? await openStore() : null, onFull);
  }

  get kind(): Store['kind'] | 'memory' {
    return this.store?.kind ?? 'memory';
  }

  /** From now on keep files, or keep none and remove those that are here. */
  async setKeep(keep: boolean): Promise<void> {
    const { store } = this;
    this.keeping = keep;
    this.full = false;
    if (keep) {
      const opened = store ?? (await openStore());
      if (this.keeping) this.store = opened;
    } else {
      this.store = null; // first, for nothing to be added to what is removed
      await this.removeAll(store);
    }
  }

  /** The bundle that is served now. What else is here stays until its room is needed. */
  serve(hashes: Iterable<string>): void {
    this.wanted.clear();
    this.alsoServe(hashes);
  }

  /** Hashes of file ranges, which a manifest does not list. */
  alsoServe(hashes: Iterable<string>): void {
    for (const hash of hashes) this.wanted.add(hash);
  }

  async get(hash: string): Promise<Bytes | null> {
    return (await this.store?.get(hash)) ?? null;
  }

  /** Where a file of `size` bytes is written while it is downloaded. */
  async draft(hash: string, size: number): Promise<SafeDraft> {
    const { store } = this;
    let inner = this.full || store === null ? null : await this.attempt(() => store.draft(hash), size);
    const drop = async (): Promise<void> => {
      const draft = inner;
      inner = null;
      await draft?.drop().catch(() => undefined);
    };
    const attempt = async (write: (draft: Draft) => unknown): Promise<void> => {
      const draft = inner;
      if (draft === null) return;
      inner = await this.attempt(async () => {
        await write(draft);
        return draft;
      }, size);
      if (inner === null) await draft.drop().catch(() => undefined);
    };
    return {
      resume: (into) => {
        try {
          return inner?.resume(into) ?? 0;
        } catch {
          void drop();
          return 0;
        }
      },
      append: (part) =>
        attempt((draft) => {
          draft.append(part);
        }),
      // The person may have said meanwhile that nothing shall be kept.
      keep: (whole) => (this.store === store ? attempt((draft) => draft.keep(whole)) : drop()),
      leave: () => {
        if (this.store === store) inner?.leave();
        else void drop();
      },
      drop,
    };
  }

  async sizes(): Promise<KeptSizes> {
    const files = await this.list();
    const sum = (chosen: (file: StoredFile) => boolean): number => files.filter(chosen).reduce((bytes, file) => bytes + file.bytes, 0);
    return {
      bytes: sum(({ hash, complete }) => complete && this.wanted.has(hash)),
      otherBytes: sum(({ hash, complete }) => complete && !this.wanted.has(hash)),
      partialBytes: sum(({ complete }) => !complete),
    };
  }

  /** Which of these are here, complete. */
  async having(hashes: readonly string[]): Promise<ReadonlySet<string>> {
    const here = new Set((await this.list()).filter(({ complete }) => complete).map(({ hash }) => hash));
    return new Set(hashes.filter((hash) => here.has(hash)));
  }

  /** Remove all that is kept, but what another tab is just writing. */
  async clear(): Promise<void> {
    await this.removeAll(this.store);
    this.full = false;
  }

  private async removeAll(store: Store | null): Promise<void> {
    for (const { hash } of await this.list(store)) await store?.remove(hash).catch(() => undefined);
  }

  private async list(store = this.store): Promise<readonly StoredFile[]> {
    return (await store?.list().catch(() => null)) ?? [];
  }

  /** Write, and where the storage is full once more with room made for `size` bytes; null when it could not be written. */
  private async attempt<T>(write: () => Promise<T> | undefined, size: number): Promise<T | null> {
    for (let last = false; ; last = true) {
      try {
        return (await write()) ?? null;
      } catch (error) {
        if (!(error instanceof Error) || error.name !== 'QuotaExceededError') return null;
        if (!last && (await this.makeRoom(size))) continue;
        if (!this.full) this.onFull();
        this.full = true;
        return null;
      }
    }
  }

  /** Remove what the bundle that is served does not use, the oldest first, until it is `size` bytes. Returns whether anything went. */
  private async makeRoom(size: number): Promise<boolean> {
    let freed = 0;
    for (const { hash, bytes } of (await this.list()).filter((file) => !this.wanted.has(file.hash))) {
      if (freed >= size) break;
      await this.store?.remove(hash).catch(() => undefined);
      freed += bytes;
    }
    return freed > 0;
  }
}
