/** HTTP for the bundle's files: exactly the bytes that were asked for, or a `BundleError` that says what to do. */
import { BundleError } from '../protocol/errors';
import type { Bytes } from './store';

export type Received = (bytes: number) => void;

/** A part of a file, or all of it. */
export interface Piece {
  readonly url: string;
  readonly start: number;
  readonly size: number;
  /** Whether it is the whole file, so that nothing but its beginning needs a Range request. */
  readonly whole: boolean;
}

/**
 * Fills `into`, which has the piece's size, from `filled` on: so a file that is longer than the manifest promises takes no more
 * memory. `arrived` is called with each part. Throws the reason of `signal` when that ends it.
 */
export async function fetchInto(piece: Piece, into: Bytes, filled: number, arrived: (part: Uint8Array) => Promise<void>, signal?: AbortSignal): Promise<void> {
  const { url, start, size, whole } = piece;
  if (filled === size) return;
  const ranged = !whole || filled > 0;
  const response = await request(url, ranged ? { range: `bytes=${start + filled}-${start + size - 1}` } : {}, signal);
  if (ranged && response.status !== 206) {
    await response.body?.cancel(); // which may be all of a large file
    throw new BundleError('bundle_range', `The server does not serve parts of ${nameIn(url)}; its operator must serve the bundle with Range requests.`);
  }
  const reader = response.body?.getReader();
  for (let end = filled; ; ) {
    const part = await readPart(reader, url, signal);
    if (part === null) {
      if (end !== size) throw wrongSize(url, size);
      return;
    }
    if (end + part.length > size) {
      await reader?.cancel();
      throw wrongSize(url, size);
    }
    into.set(part, end);
    end += part.length;
    await arrived(part);
  }
}

/** A small file whose size is not known beforehand, of at most `limit` bytes. */
export async function fetchSmall(url: string, limit: number): Promise<Bytes> {
  const bytes = new Uint8Array(await (await request(url, {})).arrayBuffer());
  if (bytes.length > limit) throw new BundleError('bundle_size', `${nameIn(url)} has ${bytes.length} bytes where ${limit} are the limit; the server's bundle is damaged.`);
  return bytes;
}

async function request(url: string, headers: Record<string, string>, signal?: AbortSignal): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { headers, signal: signal ?? null });
  } catch {
    signal?.throwIfAborted();
    throw new BundleError('bundle_unreachable', `${nameIn(url)} could not be downloaded; check the connection and reconnect.`);
  }
  if (response.ok) return response;
  await response.body?.cancel();
  // What stands before a server that starts again says so for some seconds.
  const code = response.status >= 500 ? 'bundle_unreachable' : 'bundle_missing';
  throw new BundleError(code, `The server answered ${response.status} for ${nameIn(url)}; reload the page, or tell the server's operator.`);
}

async function readPart(reader: ReadableStreamDefaultReader<Uint8Array> | undefined, url: string, signal?: AbortSignal): Promise<Uint8Array | null> {
  try {
    return (await reader?.read())?.value ?? null;
  } catch {
    signal?.throwIfAborted();
    throw new BundleError('bundle_unreachable', `The download of ${nameIn(url)} broke off; check the connection and reconnect.`);
  }
}

const wrongSize = (url: string, size: number): BundleError =>
  new BundleError('bundle_size', `${nameIn(url)} does not have the ${size} bytes that the manifest promises; the server's bundle is damaged.`);

const nameIn = (url: string): string => url.slice(url.lastIndexOf('/') + 1);
