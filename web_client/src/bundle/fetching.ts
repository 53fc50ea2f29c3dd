/** HTTP for the bundle's files: exactly the bytes that were asked for, or a `BundleError` that says what to do. */
import { BundleError } from '../protocol/errors';
import type { Bytes } from './store';

export type Received = (bytes: number) => void;

/** The server that has the bundle. */
export interface Source {
  /** Its origin. */
  readonly server: string;
  /** What it wants to be shown, if it wants any. */
  readonly apiKey?: string | undefined;
  /** The name of one of its models; its first without one. */
  readonly model?: string | null | undefined;
}

/** A part of a file, or all of it. */
export interface Piece {
  readonly source: Source;
  readonly name: string;
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
  const { source, name, start, size, whole } = piece;
  if (filled === size) return;
  const ranged = !whole || filled > 0;
  const response = await request(source, name, ranged ? { range: `bytes=${start + filled}-${start + size - 1}` } : {}, signal);
  if (ranged && response.status !== 206) {
    await response.body?.cancel(); // which may be all of a large file
    throw new BundleError('bundle_range', `The server does not serve parts of ${name}; its operator must serve the bundle with Range requests.`);
  }
  const reader = response.body?.getReader();
  for (let end = filled; ; ) {
    const part = await readPart(reader, name, signal);
    if (part === null) {
      if (end !== size) throw wrongSize(name, size);
      return;
    }
    if (end + part.length > size) {
      await reader?.cancel();
      throw wrongSize(name, size);
    }
    into.set(part, end);
    end += part.length;
    await arrived(part);
  }
}

/** A small file whose size is not known beforehand, of at most `limit` bytes. */
export async function fetchSmall(source: Source, name: string, limit: number): Promise<Bytes> {
  const reader = (await request(source, name, {})).body?.getReader();
  const parts: BlobPart[] = [];
  let length = 0;
  for (;;) {
    const part = await readPart(reader, name);
    if (part === null) return new Uint8Array(await new Blob(parts).arrayBuffer());
    length += part.length;
    if (length > limit) {
      await reader?.cancel();
      throw new BundleError('bundle_size', `${name} has more than the ${limit} bytes that it may have; the server's bundle is damaged.`);
    }
    parts.push(Uint8Array.from(part));
  }
}

function bundleUrl({ server, model }: Source): string {
  return model == null ? `${server}/bundle` : `${server}/models/${encodeURIComponent(model)}`;
}

async function request(source: Source, name: string, headers: Record<string, string>, signal?: AbortSignal): Promise<Response> {
  let response: Response;
  try {
    const { apiKey } = source;
    const all = apiKey === undefined ? headers : { ...headers, authorization: `Bearer ${apiKey}` };
    response = await fetch(`${bundleUrl(source)}/${name}`, { headers: all, signal: signal ?? null });
  } catch {
    signal?.throwIfAborted();
    throw new BundleError('bundle_unreachable', 'The server cannot be reached; check your connection and try again.');
  }
  if (response.ok) return response;
  await response.body?.cancel();
  if (response.status === 401) throw new BundleError('api_key', 'The server wants an API key that it knows; ask its operator for one.');
  // What stands before a server that starts again says so for some seconds.
  const code = response.status >= 500 ? 'bundle_unreachable' : 'bundle_missing';
  throw new BundleError(code, `The server answered ${response.status} for ${name}; reload the page, or tell the server's operator.`);
}

async function readPart(reader: ReadableStreamDefaultReader<Uint8Array> | undefined, name: string, signal?: AbortSignal): Promise<Uint8Array | null> {
  try {
    return (await reader?.read())?.value ?? null;
  } catch {
    signal?.throwIfAborted();
    throw new BundleError('bundle_unreachable', `The download of ${name} broke off; check your connection and try again.`);
  }
}

const wrongSize = (name: string, size: number): BundleError =>
  new BundleError('bundle_size', `${name} does not have the ${size} bytes that the manifest promises; the server's bundle is damaged.`);
