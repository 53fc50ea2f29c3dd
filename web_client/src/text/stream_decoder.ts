/** Decoding while tokens still arrive: text comes out only once its characters are whole. */

const REPLACEMENT = '\ufffd';
/** Tokens decoded again with each new one, so that a character spread over several comes out whole, and spaces come out right. */
const CONTEXT_TOKENS = 8;

export class StreamDecoder {
  private readonly ids: number[] = [];
  /** First id of the window that is decoded again. */
  private start = 0;
  /** Ids whose text was given. */
  private given = 0;

  constructor(private readonly decode: (ids: readonly number[]) => string) {}

  /** The text that these tokens complete, possibly none. */
  push(ids: readonly number[]): string {
    this.ids.push(...ids);
    const before = this.decode(this.ids.slice(this.start, this.given));
    const now = this.decode(this.ids.slice(this.start));
    if (now.length <= before.length || now.endsWith(REPLACEMENT)) return '';
    this.start = Math.max(this.start, this.given - CONTEXT_TOKENS);
    this.given = this.ids.length;
    return now.slice(before.length);
  }

  /** What is left: tokens that never became a whole character. */
  finish(): string {
    const before = this.decode(this.ids.slice(this.start, this.given));
    const now = this.decode(this.ids.slice(this.start));
    this.given = this.ids.length;
    return now.slice(before.length);
  }
}
