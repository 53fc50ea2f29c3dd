/** Who made a bundle (protocol/BUNDLE.md, "Signature"): Ed25519 over the bytes of `manifest.json`, checked by the browser. */
import { BundleError } from '../protocol/errors';
import { readTrustedKey } from '../protocol/keys';
import { canVerify, sha256 } from './digest';
import type { Bytes } from './store';

export const SIGNATURE_NAME = 'manifest.sig';
/** Bytes that the file may have. */
export const SIGNATURE_LIMIT = 4096;

/** Throws unless one of the keys has signed these bytes; `signature` is null where the server has none. */
export async function checkSignature(manifest: Bytes, signature: Bytes | null, trusted: readonly string[]): Promise<void> {
  if (!canVerify()) throw unsupported('pages over plain http');
  if (signature === null) throw refused('is not signed');
  const { key: claimed, value } = parse(signature);
  for (const text of trusted) {
    const spki = Uint8Array.from(atob(readTrustedKey(text)), (letter) => letter.charCodeAt(0));
    if ((await sha256(spki)) !== claimed) continue;
    if (!(await verify(spki, value, manifest))) throw refused('was changed since it was signed, or has the signature of another one');
    return;
  }
  throw refused('is signed with another key');
}

async function verify(spki: Bytes, signature: Bytes, manifest: Bytes): Promise<boolean> {
  let key: CryptoKey;
  try {
    key = await crypto.subtle.importKey('spki', spki, 'Ed25519', false, ['verify']);
  } catch (error) {
    if (error instanceof Error && error.name === 'NotSupportedError') throw unsupported('this browser');
    throw error;
  }
  return crypto.subtle.verify('Ed25519', key, signature, manifest);
}

/** Id of the key it claims to be of, and the signature itself. */
function parse(file: Bytes): { readonly key: string; readonly value: Bytes } {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(file));
  } catch {
    throw refused('has a signature that cannot be read');
  }
  const { algorithm, key, signature } = (value ?? {}) as Record<string, unknown>;
  const wellFormed = algorithm === 'ed25519' && typeof key === 'string' && typeof signature === 'string' && /^[0-9a-f]{128}$/.test(signature);
  if (!wellFormed) throw refused('has a signature that cannot be read');
  return { key, value: Uint8Array.from(signature.match(/../g) ?? [], (byte) => parseInt(byte, 16)) };
}

const refused = (why: string): BundleError =>
  new BundleError('bundle_signature', `This page uses only models signed with a key that it trusts, and the server's ${why}; nothing of it was used. Tell the page's operator.`);

const unsupported = (where: string): BundleError =>
  new BundleError('signature_unsupported', `This page uses only signed models, and ${where} cannot check Ed25519 signatures; use https and a current browser.`);
