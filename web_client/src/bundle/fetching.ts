/** HTTP for the bundle's files: exactly the bytes that were asked for, or a `BundleError` that says what to do. */
import { BundleError } from '../protocol/errors';

export type Received = (bytes: number) => void;

/** The whole file, which must have `size` bytes. */
export async function fetchWhole(url: string, size: number, received: Received): Promise<Uint8Array<ArrayBuffer>> {
  return readExactly(await request(url, {}), size, url, received);
}

/** `size` bytes from `start` on. */
export async function fetchRange(url: string, start: number, size: number): Promise<Uint8Array<ArrayBuffer>> {
  const response = await request(url, { range: `bytes=${start}-${start + size - 1}` });
  if (response.status !== 206) {
    throw new BundleError('bundle_range', `The server does not serve parts of ${nameIn(url)}; its operator must serve the bundle with Range requests.`);
  }
  return readExactly(response, size, url, () => undefined);
}

/** A small file whose size is not known beforehand, of at most `limit` bytes. */
export async function fetchSmall(url: string, limit: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(await (await request(url, {})).arrayBuffer());
  if (bytes.length > limit) throw new BundleError('bundle_size', `${nameIn(url)} has ${bytes.length} bytes where ${limit} are the limit; the server's bundle is damaged.`);
  return bytes;
}

async function request(url: string, headers: Record<string, string>): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { headers });
  } catch {
    throw new BundleError('bundle_unreachable', `${nameIn(url)} could not be downloaded; check the connection and reconnect.`);
  }
  if (!response.ok) throw new BundleError('bundle_missing', `The server answered ${response.status} for ${nameIn(url)}; reload the page, or tell the server's operator.`);
  return response;
}

/** Into one buffer of the size that the manifest promises, so that a file twice as long takes no memory twice as large. */
async function readExactly(response: Response, size: number, url: string, received: Received): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(size);
  let filled = 0;
  const reader = response.body?.getReader();
  for (;;) {
    const part = await readPart(reader, url);
    if (part === null) break;
    if (filled + part.length > size) {
      await reader?.cancel();
      throw wrongSize(url, size);
    }
    bytes.set(part, filled);
    filled += part.length;
    received(part.length);
  }
  if (filled !== size) throw wrongSize(url, size);
  return bytes;
}

async function readPart(reader: ReadableStreamDefaultReader<Uint8Array> | undefined, url: string): Promise<Uint8Array | null> {
  try {
    return (await reader?.read())?.value ?? null;
  } catch {
    throw new BundleError('bundle_unreachable', `The download of ${nameIn(url)} broke off; check the connection and reconnect.`);
  }
}

const wrongSize = (url: string, size: number): BundleError =>
  new BundleError('bundle_size', `${nameIn(url)} does not have the ${size} bytes that the manifest promises; the server's bundle is damaged.`);

const nameIn = (url: string): string => url.slice(url.lastIndexOf('/') + 1);
