/** Where verified bytes are kept under their own SHA-256: one store for all bundles, splits, versions and tabs of an origin. */
import { CacheStore } from './cache';
import { OpfsStore } from './opfs';

export type Bytes = Uint8Array<ArrayBuffer>;

export interface StoredFile {
  /** SHA-256 in hex. */
  readonly hash: string;
  readonly bytes: number;
  /** False while it is a download that was begun. */
  readonly complete: boolean;
}

export interface Store {
  readonly kind: 'opfs' | 'cache';
  /** A complete file, or null. A disk forgets and other pages of the origin write too, so the caller verifies again. */
  get(hash: string): Promise<Bytes | null>;
  /** Go on with a download, or begin it. One caller at a time for a hash. Throws when there is no room. */
  draft(hash: string): Promise<Draft>;
  /** All that is here, the oldest first. */
  list(): Promise<readonly StoredFile[]>;
  /** Nothing happens where another tab is writing it. */
  remove(hash: string): Promise<void>;
}

/** A file on its way into the store. Whoever has one ends it by `keep`, `leave` or `drop`. */
export interface Draft {
  /** Copies what an earlier visit left to the beginning of `into`. Returns how many bytes that were. */
  resume(into: Bytes): number;
  /** Throws when there is no room. */
  append(part: Uint8Array): void;
  /** It is complete and verified: `whole` is what was appended. Throws when there is no room. */
  keep(whole: Bytes): Promise<void>;
  /** Close it; what was appended is there to be resumed, where the store can do that. */
  leave(): void;
  drop(): Promise<void>;
}

/** OPFS, where a download that broke off can be resumed; else the Cache API; else nothing (an insecure page, a private window). */
export async function openStore(): Promise<Store | null> {
  return (await OpfsStore.open()) ?? (await CacheStore.open());
}
