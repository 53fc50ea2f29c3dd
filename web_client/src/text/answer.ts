/** The text of one answer as a person may see it: never half a character, never the beginning of a stop string. */
import { StreamDecoder } from './stream_decoder';

export class AnswerText {
  private readonly decoder: StreamDecoder;
  private whole = '';
  private shown = 0;

  constructor(
    decode: (ids: readonly number[]) => string,
    private readonly stop: readonly string[],
  ) {
    this.decoder = new StreamDecoder(decode);
  }

  /** The text that these tokens add for certain. */
  push(ids: readonly number[]): string {
    this.whole += this.decoder.push(ids);
    return this.showUpTo(this.firstStop() ?? this.whole.length - this.heldBack());
  }

  /** Whether the answer holds a stop string. */
  get stopped(): boolean {
    return this.firstStop() !== null;
  }

  /** No more tokens come: the rest of the text, cut before a stop string. */
  finish(): { readonly rest: string; readonly text: string } {
    this.whole += this.decoder.finish();
    const rest = this.showUpTo(this.firstStop() ?? this.whole.length);
    return { rest, text: this.whole.slice(0, this.shown) };
  }

  private showUpTo(end: number): string {
    const text = this.whole.slice(this.shown, end);
    this.shown = Math.max(this.shown, end);
    return text;
  }

  /** Where the stop string that begins first begins. */
  private firstStop(): number | null {
    const places = this.stop.map((stop) => this.whole.indexOf(stop)).filter((place) => place >= 0);
    return places.length > 0 ? Math.min(...places) : null;
  }

  /** Length of the longest end of the text with which a stop string could begin. */
  private heldBack(): number {
    const longest = Math.max(0, ...this.stop.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, this.whole.length); length > 0; length -= 1) {
      const end = this.whole.slice(-length);
      if (this.stop.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}
