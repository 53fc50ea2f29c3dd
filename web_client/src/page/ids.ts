/** Names for conversations and turns that no other tab and no file gives again: 128 random bits. */
export function newId(): string {
  // crypto.randomUUID is missing where the page is neither https nor localhost.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
