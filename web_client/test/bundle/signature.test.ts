import { generateKeyPairSync, sign } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { fetchManifest } from '../../src/bundle/manifest';
import { sha256 } from '../../src/bundle/digest';
import { createEngine } from '../../src/client';
import type { BundleError } from '../../src/protocol/errors';

const MANIFEST = Uint8Array.from(readFileSync(new URL('../../../demo/bundle/manifest.json', import.meta.url)));
const SOURCE = { server: 'http://server' };

interface Key {
  readonly private: KeyObject;
  /** As `splitllm sign --new` prints it. */
  readonly trusted: string;
  readonly id: string;
}

async function newKey(): Promise<Key> {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  return { private: privateKey, trusted: spki.toString('base64'), id: await sha256(Uint8Array.from(spki)) };
}

const [ours, theirs] = [await newKey(), await newKey()];

const signed = (manifest: Uint8Array, by: Key, id = by.id): string => JSON.stringify({ algorithm: 'ed25519', key: id, signature: sign(null, manifest, by.private).toString('hex') });

/** A server of a manifest, and of a signature if it has one. */
function serve(manifest: Uint8Array, signature: string | null): void {
  vi.stubGlobal('fetch', (url: string) => {
    const body = url.endsWith('/manifest.sig') ? signature : Uint8Array.from(manifest);
    return Promise.resolve(new Response(body, { status: body === null ? 404 : 200 }));
  });
}

function flipped(bytes: Uint8Array, bit: number): Uint8Array {
  const changed = Uint8Array.from(bytes);
  changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
  return changed;
}

const fetched = (...trusted: string[]): Promise<unknown> => fetchManifest(SOURCE, trusted);
const refused = expect.objectContaining({ name: 'BundleError', code: 'bundle_signature' }) as BundleError;

afterEach(() => {
  vi.unstubAllGlobals();
});

test('a manifest that a trusted key signed is taken, and without a trusted key every one', async () => {
  serve(MANIFEST, signed(MANIFEST, ours));
  for (const trusted of [[ours.trusted], [theirs.trusted, ours.trusted], [`-----BEGIN PUBLIC KEY-----\n${ours.trusted}\n-----END PUBLIC KEY-----\n`], []]) {
    await expect(fetched(...trusted)).resolves.toMatchObject({ identity: await sha256(MANIFEST) });
  }
  serve(MANIFEST, null);
  await expect(fetched()).resolves.toBeDefined();
});

describe('refused before anything in it is used:', () => {
  test.each([0, 12345, 8 * MANIFEST.length - 1])('a manifest with bit %i flipped', async (bit) => {
    serve(flipped(MANIFEST, bit), signed(MANIFEST, ours));
    await expect(fetched(ours.trusted)).rejects.toEqual(refused);
  });

  test('a signature with any bit flipped', async () => {
    const { signature } = JSON.parse(signed(MANIFEST, ours)) as { signature: string };
    const bytes = Uint8Array.from(Buffer.from(signature, 'hex'));
    for (let bit = 0; bit < 8 * bytes.length; bit += 7) {
      serve(MANIFEST, JSON.stringify({ algorithm: 'ed25519', key: ours.id, signature: Buffer.from(flipped(bytes, bit)).toString('hex') }));
      await expect(fetched(ours.trusted)).rejects.toEqual(refused);
    }
  });

  test('one without a signature', async () => {
    serve(MANIFEST, null);
    await expect(fetched(ours.trusted)).rejects.toEqual(refused);
  });

  test('one that another key signed, also in the name of the trusted one', async () => {
    for (const id of [theirs.id, ours.id]) {
      serve(MANIFEST, signed(MANIFEST, theirs, id));
      await expect(fetched(ours.trusted)).rejects.toEqual(refused);
    }
  });

  test('one with the signature of another bundle', async () => {
    serve(MANIFEST, signed(new TextEncoder().encode('{"format": "splitllm-bundle"}'), ours));
    await expect(fetched(ours.trusted)).rejects.toEqual(refused);
  });

  test.each(['', 'null', '[]', '{}', '{"algorithm": "none", "key": "", "signature": ""}', '[[[['])('what is no signature: %s', async (text) => {
    serve(MANIFEST, text);
    await expect(fetched(ours.trusted)).rejects.toEqual(refused);
  });

  test('a signature that never ends', async () => {
    serve(MANIFEST, ' '.repeat(5000));
    await expect(fetched(ours.trusted)).rejects.toMatchObject({ code: 'bundle_size' });
  });
});

test('a browser without Ed25519, and a page that may not hash, use no model rather than an unchecked one', async () => {
  serve(MANIFEST, signed(MANIFEST, ours));
  const { subtle } = crypto;
  const without = { digest: subtle.digest.bind(subtle), importKey: () => Promise.reject(new DOMException('no such algorithm', 'NotSupportedError')) };
  for (const stub of [{ subtle: without }, {}]) {
    vi.stubGlobal('crypto', stub);
    await expect(fetched(ours.trusted)).rejects.toMatchObject({ name: 'BundleError', code: 'signature_unsupported' });
  }
});

test('a key that is none is refused at once, and not shown', () => {
  for (const [options, code] of [[{ trustedKey: 'c2VjcmV0' }, 'trusted_key'], [{ trustedKey: [] }, 'trusted_key'], [{ trustedKey: [ours.trusted, ''] }, 'trusted_key'], [{ apiKey: 'sec ret' }, 'api_key'], [{ apiKey: '' }, 'api_key']] as const) {
    let thrown: unknown = null;
    try {
      createEngine('http://server', options);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toMatchObject({ name: 'SplitLLMError', code });
    expect(String(thrown)).not.toMatch(/sec|c2V/);
  }
});
