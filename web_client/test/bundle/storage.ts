/** The browser's storage as far as it is used here: the private file system, the Cache API and Web Locks, in memory. */
import { vi } from 'vitest';

/** Files by name, and the room that is left for more, in bytes. */
export interface Disk {
  readonly files: Map<string, Uint8Array<ArrayBuffer>>;
  room: number;
  /** Nothing of a file that is being written can be read back. */
  unreadable: boolean;
}

const used = (disk: Disk): number => [...disk.files.values()].reduce((sum, bytes) => sum + bytes.length, 0);
const full = (): DOMException => new DOMException('Full.', 'QuotaExceededError');
const missing = (): DOMException => new DOMException('Not here.', 'NotFoundError');

export function stubOpfs(room = Infinity): Disk {
  const disk: Disk = { files: new Map(), room, unreadable: false };
  const open = new Set<string>();
  let clock = 0;
  const times = new Map<string, number>();
  class FileHandle {
    readonly kind = 'file';
    constructor(private name: string) {}
    getFile(): Promise<unknown> {
      const bytes = disk.files.get(this.name);
      if (bytes === undefined) return Promise.reject(missing());
      return Promise.resolve({ size: bytes.length, lastModified: times.get(this.name), arrayBuffer: () => Promise.resolve(bytes.slice().buffer) });
    }
    createSyncAccessHandle(): Promise<unknown> {
      const { name } = this;
      if (open.has(name)) return Promise.reject(new DOMException('Open.', 'NoModificationAllowedError'));
      open.add(name);
      const bytes = (): Uint8Array<ArrayBuffer> => disk.files.get(name) ?? new Uint8Array();
      return Promise.resolve({
        getSize: () => bytes().length,
        read: (into: Uint8Array) => {
          if (disk.unreadable) throw new DOMException('Gone.', 'NotReadableError');
          const part = bytes().subarray(0, into.length);
          into.set(part);
          return part.length;
        },
        // As Chromium does where the room ends: what fits is written, nothing is thrown, and the number is no length.
        write: (part: Uint8Array, { at }: { at: number }) => {
          const fits = Math.min(part.length, disk.room - used(disk));
          const grown = new Uint8Array(Math.max(bytes().length, at + fits));
          grown.set(bytes());
          grown.set(part.subarray(0, fits), at);
          disk.files.set(name, grown);
          times.set(name, (clock += 1));
          return fits === part.length ? part.length : 2 ** 32 - 8;
        },
        truncate: (size: number) => disk.files.set(name, bytes().slice(0, size)),
        flush: () => undefined,
        close: () => open.delete(name),
      });
    }
    move(name: string): Promise<void> {
      if (open.has(this.name) || disk.files.has(name)) return Promise.reject(new DOMException('In the way.', 'NoModificationAllowedError'));
      disk.files.set(name, disk.files.get(this.name) ?? new Uint8Array());
      times.set(name, times.get(this.name) ?? 0);
      disk.files.delete(this.name);
      this.name = name;
      return Promise.resolve();
    }
  }
  const folder = {
    getFileHandle: (name: string, { create = false } = {}) => {
      if (!disk.files.has(name)) {
        if (!create) return Promise.reject(missing());
        if (used(disk) > disk.room) return Promise.reject(full());
        disk.files.set(name, new Uint8Array());
      }
      return Promise.resolve(new FileHandle(name));
    },
    removeEntry: (name: string) => {
      if (open.has(name)) return Promise.reject(new DOMException('Open.', 'NoModificationAllowedError'));
      return disk.files.delete(name) ? Promise.resolve() : Promise.reject(missing());
    },
    entries: async function* () {
      for (const name of [...disk.files.keys()]) yield await Promise.resolve([name, new FileHandle(name)]);
    },
  };
  vi.stubGlobal('FileSystemFileHandle', FileHandle);
  vi.stubGlobal('navigator', { storage: { getDirectory: () => Promise.resolve({ getDirectoryHandle: () => Promise.resolve(folder) }) }, locks: locks() });
  return disk;
}

export function stubCaches(room = Infinity): Disk {
  const disk: Disk = { files: new Map(), room, unreadable: false };
  const nameOf = (key: string | { url: string }): string => (typeof key === 'string' ? key : key.url).replace(/.*\//, '');
  const cache = {
    match: (key: string | { url: string }) => {
      const bytes = disk.files.get(nameOf(key));
      return Promise.resolve(bytes === undefined ? undefined : new Response(bytes, { headers: { 'content-length': String(bytes.length) } }));
    },
    put: async (key: string, response: Response) => {
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (used(disk) + bytes.length > disk.room) throw full();
      disk.files.set(nameOf(key), bytes);
    },
    keys: () => Promise.resolve([...disk.files.keys()].map((name) => ({ url: `http://server/bundle/sha256/${name}` }))),
    delete: (key: string) => Promise.resolve(disk.files.delete(nameOf(key))),
  };
  vi.stubGlobal('caches', { open: () => Promise.resolve(cache) });
  vi.stubGlobal('navigator', { locks: locks() });
  return disk;
}

/** Exclusive locks, first come, first served. */
function locks(): unknown {
  const last = new Map<string, Promise<unknown>>();
  return {
    request: (name: string, { signal }: { signal?: AbortSignal }, call: () => Promise<unknown>) => {
      const mine = (last.get(name) ?? Promise.resolve()).then(() => {
        signal?.throwIfAborted();
        return call();
      });
      last.set(name, mine.catch(() => undefined));
      return mine;
    },
  };
}
