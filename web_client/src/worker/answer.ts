/** What is known of one answer while it is made. */
import type { AnswerStats, Command } from '../api';
import type { Done, Sampling } from '../protocol/messages.generated';
import { AnswerText } from '../text/answer';
import type { TextCodec } from '../text/codec';

export type Ask = Extract<Command, { type: 'ask' }>;

/** Of the protocol: a `turn` with more would be refused whole. */
const MOST_STOPS = 8;
const LONGEST_STOP = 200;
/** Tokens that came within less were read together, after a thread or a network that was busy: that says nothing of their pace. */
const SHORTEST_PACE_MS = 10;

export class Answer {
  /** Ids of what the answer begins with; they stand in the prompt. */
  readonly begun: readonly number[];
  /** Ids of the answer so far, over all attempts. */
  readonly ids: number[] = [];
  /** What the server is told; stop strings that the protocol does not carry are looked for here alone. */
  readonly stop: readonly string[];
  private readonly text: AnswerText;
  private readonly begunLength: number;
  /** Chosen here where nobody did, so that another session can go on with the draws. */
  private readonly seed = Math.floor(Math.random() * 2 ** 53);
  private readonly asked = performance.now();
  private firstAt: number | null = null;
  private lastAt = 0;
  private blocksRun = 0;
  private blocksSaved = 0;
  private msRun = 0;
  private msSaved = 0;
  private sentBytes = 0;
  private receivedBytes = 0;
  private decodeMs = 0;
  private decodeSteps = 0;

  constructor(
    readonly ask: Ask,
    codec: TextCodec,
  ) {
    const stop = ask.stop.filter((text) => text !== '');
    this.stop = stop.filter((text) => text.length <= LONGEST_STOP).slice(0, MOST_STOPS);
    this.text = new AnswerText((ids) => codec.decode(ids), stop);
    const { begin = '' } = ask;
    this.begun = begin === '' ? [] : codec.encode(begin);
    // The page has this text already; the decoder needs it, for a word may begin in it and end after it.
    this.begunLength = this.begun.length === 0 ? 0 : this.text.push(this.begun).length;
  }

  get sampling(): Sampling {
    const { temperature, topP, topK, minP, repetitionPenalty, seed } = this.ask.sampling;
    return { temperature, top_p: topP, top_k: topK, min_p: minP, repetition_penalty: repetitionPenalty, seed: seed ?? (temperature > 0 ? this.seed : null) };
  }

  /** The text that these tokens add for certain. */
  push(ids: readonly number[]): string {
    this.lastAt = performance.now();
    this.firstAt ??= this.lastAt;
    this.ids.push(...ids);
    return this.text.push(ids);
  }

  /** Whether a stop string stands in the text, also one that two attempts wrote together. */
  get stopped(): boolean {
    return this.text.stopped;
  }

  count(stats: Done['stats'], sentBytes: number, receivedBytes: number): void {
    this.sentBytes += sentBytes;
    this.receivedBytes += receivedBytes;
    this.blocksRun += stats.server_blocks_run;
    this.blocksSaved += stats.server_blocks_saved;
    this.msRun += stats.server_ms_run;
    this.msSaved += stats.server_ms_saved;
  }

  /** Runs blocks here on so many rows, and notes what a single one took. */
  async timed<T>(rows: number, compute: () => Promise<T>): Promise<T> {
    const started = performance.now();
    const result = await compute();
    if (rows === 1) {
      this.decodeMs += performance.now() - started;
      this.decodeSteps += 1;
    }
    return result;
  }

  finish(): { readonly rest: string; readonly text: string } {
    const { rest, text } = this.text.finish();
    return { rest, text: `${this.ask.begin ?? ''}${text.slice(this.begunLength)}` };
  }

  get stats(): AnswerStats {
    const tokens = this.ids.length;
    const pace = this.firstAt === null ? 0 : this.lastAt - this.firstAt;
    return {
      tokens,
      ttftMs: this.firstAt === null ? null : this.firstAt - this.asked,
      tpotMs: tokens < 2 || pace < SHORTEST_PACE_MS ? null : pace / (tokens - 1),
      serverBlocksRun: this.blocksRun,
      serverBlocksSaved: this.blocksSaved,
      serverMsRun: this.msRun,
      serverMsSaved: this.msSaved,
      browserTpotMs: this.decodeSteps === 0 ? null : this.decodeMs / this.decodeSteps,
      sentBytes: this.sentBytes,
      receivedBytes: this.receivedBytes,
    };
  }
}
