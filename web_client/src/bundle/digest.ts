/** SHA-256 by the browser, which offers it only in a secure context (https, or this machine). */

export const canVerify = (): boolean => typeof crypto !== 'undefined' && 'subtle' in crypto;

/** In hex, as the manifest writes it. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return toHex(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)));
}

export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
