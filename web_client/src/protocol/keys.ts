/** Keys as a page gives them to the engine: whether they can be ones, before anything is done with them. */
import { SplitLLMError } from './errors';

/** What may stand in a header and in the name of a subprotocol. */
const API_KEY = /^[\w-]{1,256}$/;
/** An Ed25519 public key as SPKI (RFC 8410) in base64: 12 bytes that are always the same, then the key's 32. */
const TRUSTED_KEY = /^MCowBQYDK2VwAyEA[A-Za-z0-9+/]{43}=$/;

/** Throws `api_key` for what is none. */
export function checkApiKey(text: string): void {
  if (!API_KEY.test(text)) throw new SplitLLMError('api_key', 'An API key is one word of letters, digits, dashes and underscores; give what `splitllm key` printed.');
}

/** The SPKI form, in base64, of a public key that is given so or as PEM. Throws `trusted_key` for what is none. */
export function readTrustedKey(text: string): string {
  const spki = text.replace(/-----(?:BEGIN|END) PUBLIC KEY-----|\s/g, '');
  if (!TRUSTED_KEY.test(spki)) throw new SplitLLMError('trusted_key', 'A trusted key is an Ed25519 public key in base64; give what `splitllm sign --new` printed.');
  return spki;
}
