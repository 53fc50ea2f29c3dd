/** Positions or blocks from `start` up to, and without, `end`. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

export const sizeOf = (span: Span): number => span.end - span.start;

/** Most rows of one frame: small enough that computing, sending and the server's work on a prompt overlap. */
export const CHUNK_ROWS = 64;

const FRAME_HEADER_BYTES = 32;

/** Rows a frame may have, under the server's limits. */
export function rowsPerFrame(limits: { readonly max_rows: number; readonly max_message_bytes: number }, rowBytes: number): number {
  const fitting = Math.floor((limits.max_message_bytes - FRAME_HEADER_BYTES) / rowBytes);
  return Math.max(1, Math.min(CHUNK_ROWS, limits.max_rows, fitting));
}

/** `span` in pieces of at most `rows`. */
export function chunks(span: Span, rows: number): Span[] {
  const pieces: Span[] = [];
  for (let start = span.start; start < span.end; start += rows) pieces.push({ start, end: Math.min(start + rows, span.end) });
  return pieces;
}

/** How many leading ids two conversations share. */
export function commonPrefix(one: readonly number[], other: readonly number[]): number {
  const shorter = Math.min(one.length, other.length);
  for (let index = 0; index < shorter; index += 1) if (one[index] !== other[index]) return index;
  return shorter;
}
