/** The store in the origin's private file system. A complete file has its hash for a name, a download that was begun ends in `.part`. */
import type { Bytes, Draft, Store, StoredFile } from './store';

const FOLDER = 'splitllm-weights';
const PART = '.part';

export class OpfsStore implements Store {
  readonly kind = 'opfs';

  private constructor(private readonly folder: FileSystemDirectoryHandle) {}

  /** Null where the browser has no such file system, or not all of it that is needed here. */
  static async open(): Promise<OpfsStore | null> {
    try {
      if (!('createSyncAccessHandle' in FileSystemFileHandle.prototype && 'move' in FileSystemFileHandle.prototype)) return null;
      const root = await navigator.storage.getDirectory();
      return new OpfsStore(await root.getDirectoryHandle(FOLDER, { create: true }));
    } catch {
      return null;
    }
  }

  async get(hash: string): Promise<Bytes | null> {
    try {
      const handle = await this.folder.getFileHandle(hash);
      return new Uint8Array(await (await handle.getFile()).arrayBuffer());
    } catch {
      return null; // not here, or gone while it was read
    }
  }

  async draft(hash: string): Promise<Draft> {
    const handle = await this.folder.getFileHandle(hash + PART, { create: true });
    return new OpfsDraft(this.folder, hash, handle, await handle.createSyncAccessHandle());
  }

  async list(): Promise<readonly StoredFile[]> {
    const files: (StoredFile & { readonly at: number })[] = [];
    for await (const [name, handle] of this.folder.entries()) {
      if (handle.kind !== 'file') continue;
      // Another tab may have removed it in the meantime.
      const file = await handle.getFile().catch(() => null);
      if (file === null) continue;
      const complete = !name.endsWith(PART);
      files.push({ hash: complete ? name : name.slice(0, -PART.length), bytes: file.size, complete, at: file.lastModified });
    }
    return files.sort((one, other) => one.at - other.at);
  }

  async remove(hash: string): Promise<void> {
    for (const name of [hash, hash + PART]) await this.folder.removeEntry(name).catch(() => undefined);
  }
}

class OpfsDraft implements Draft {
  private length: number;

  constructor(
    private readonly folder: FileSystemDirectoryHandle,
    private readonly hash: string,
    private readonly handle: FileSystemFileHandle,
    private readonly access: FileSystemSyncAccessHandle,
  ) {
    this.length = access.getSize();
  }

  resume(into: Bytes): number {
    // Longer than the file can only be damage.
    if (this.length > into.length) this.access.truncate(0);
    this.length = this.access.read(into, { at: 0 });
    return this.length;
  }

  append(part: Uint8Array): void {
    // Where the room ends, Chromium throws nothing and returns a number that is not the length.
    if (this.access.write(part, { at: this.length }) !== part.length) {
      this.access.truncate(this.length);
      throw new DOMException('The storage is full.', 'QuotaExceededError');
    }
    this.length += part.length;
  }

  async keep(): Promise<void> {
    this.access.flush();
    this.access.close();
    // A damaged file may stand there, and not every browser moves one file over another.
    await this.folder.removeEntry(this.hash).catch(() => undefined);
    await this.handle.move(this.hash);
  }

  leave(): void {
    this.access.close();
  }

  async drop(): Promise<void> {
    this.access.close();
    await this.folder.removeEntry(this.hash + PART).catch(() => undefined);
  }
}
