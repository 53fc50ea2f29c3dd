import { expect, test } from 'vitest';
import { RuntimeError } from '../../src/protocol/errors';
import type { Frame } from '../../src/protocol/frame';
import type { ClientMessage, Plan, Report, Sampling, ServerMessage, Welcome } from '../../src/protocol/messages.generated';
import { ClientSession } from '../../src/session/session';
import type { Happening, TurnRequest, Work } from '../../src/session/session';
import { Mailbox } from '../../src/session/mailbox';
import { runTurn } from '../../src/worker/turn';
import type { TurnLink } from '../../src/worker/turn';

const REPORT: Report = { backend: 'wasm', variant: 'float32', blocks_ready: 2, decode_ms: 1, prefill_ms: 2, prefill_rows: 64, memory_bytes: null, effort: null };
const GREEDY: Sampling = { temperature: 0, top_p: 1, top_k: 0, min_p: 0, repetition_penalty: 1, seed: null };
const WELCOME: Welcome = {
  type: 'welcome', protocol: 1, agent: 'test', model: 'tiny', bundle: '0'.repeat(64), blocks: 2, hidden_size: 1, vocab_size: 100,
  sla: { ttft_ms: 2000, tpot_ms: 150 }, limits: { max_context: 64, max_rows: 2, max_message_bytes: 4096, idle_timeout_s: 600 },
};
const planned = (split: number): Plan => ({
  type: 'plan', turn: null, session: 'a'.repeat(32), split, wire: 'float32', max_tokens: 32, position: 0, feasible: true, reason: '', bound: 'forced', saved: { block_steps: 0, server_time: 0 },
  predicted: { ttft_ms: 1, tpot_ms: 1, server_ms: 1 }, rtt_ms: 0,
});

/** A server that counts up from the last id it was sent, and says done after `answers` tokens; it answers at once. */
class CountingServer implements TurnLink {
  readonly session = new ClientSession();
  readonly alive = true;
  readonly log: string[] = [];
  private readonly news = new Mailbox<Happening>();
  private turn = { number: 0, end: 0, tokens: 0, length: 0 };

  constructor(
    split: number,
    private readonly answers: number,
  ) {
    this.session.hello('test', null, null);
    this.session.receive(WELCOME);
    this.session.open(REPORT, split, 'float32', 32, 8, false);
    this.session.receive(planned(split));
  }

  get hasNews(): boolean {
    return !this.news.isEmpty;
  }

  next(): Promise<Happening> {
    return this.news.next();
  }

  send(message: ClientMessage): void {
    this.log.push(message.type);
    if (message.type === 'turn') this.turn = { number: message.turn, end: message.start + message.prompt_tokens, tokens: 0, length: message.start };
    if (message.type === 'cancel') this.finish('cancelled');
  }

  sendFrame(frame: Frame): Promise<void> {
    const end = frame.position + frame.rows;
    this.log.push(`${frame.kind} ${frame.position}-${end}`);
    this.turn.length = end;
    const last = frame.values.at(-1) ?? NaN;
    // With split 0 the server goes on by itself.
    if (end >= this.turn.end) for (let count = 1; count <= (frame.kind === 'ids' ? this.answers : 1); count += 1) this.answer(last + count);
    return Promise.resolve();
  }

  private answer(id: number): void {
    const position = this.turn.end + this.turn.tokens;
    this.hear({ kind: 'token', dtype: 'int32', turn: this.turn.number, position, rows: 1, columns: 1, values: Int32Array.of(id) });
    this.turn.tokens += 1;
    if (this.turn.tokens === this.answers) this.finish('stop');
  }

  private finish(reason: 'stop' | 'cancelled'): void {
    this.hear({
      type: 'done', turn: this.turn.number, finish_reason: reason, stop_string: null, tokens: this.turn.tokens, position: this.turn.length,
      stats: { ttft_ms: 1, tpot_ms: 1, queue_ms: 0, server_blocks_run: 0, server_blocks_saved: 0, server_ms_run: 0, server_ms_saved: 0, rtt_ms: 0 },
    });
  }

  private hear(message: ServerMessage | Frame): void {
    const happening = this.session.receive(message);
    if (happening.type !== 'nothing') this.news.put(happening);
  }
}

const request: TurnRequest = { prompt: [1, 2, 3], maxTokens: 8, sampling: GREEDY, stop: [] };
/** Blocks that change nothing: a row's hidden state is its id. */
const compute = (work: Work): Promise<{ dtype: 'float32'; values: Float32Array }> => Promise.resolve({ dtype: 'float32', values: Float32Array.from(work.ids) });

async function answerOf(link: CountingServer): Promise<number[]> {
  const ids: number[] = [];
  const done = await runTurn(link, request, compute, () => undefined, (more) => ids.push(...more));
  expect(done.finish_reason).toBe('stop');
  return ids;
}

test('with split 0 ids go up and tokens stream down', async () => {
  const link = new CountingServer(0, 3);
  await expect(answerOf(link)).resolves.toEqual([4, 5, 6]);
  expect(link.log).toEqual(['turn', 'ids 0-2', 'ids 2-3']);
});

test('with blocks here each token is answered by its hidden state', async () => {
  const link = new CountingServer(1, 3);
  await expect(answerOf(link)).resolves.toEqual([4, 5, 6]);
  expect(link.log).toEqual(['turn', 'hidden 0-2', 'hidden 2-3', 'hidden 3-4', 'hidden 4-5']);
});

test('with all blocks here only the last row of the prompt goes up', async () => {
  const link = new CountingServer(2, 3);
  await expect(answerOf(link)).resolves.toEqual([4, 5, 6]);
  expect(link.log).toEqual(['turn', 'hidden 2-3', 'hidden 3-4', 'hidden 4-5']);
});

test('blocks that fail end the turn in good order, and the session can go on', async () => {
  const link = new CountingServer(1, 3);
  let steps = 0;
  const failing = (work: Work): ReturnType<typeof compute> => {
    steps += 1;
    if (steps === 4) throw new RuntimeError('run_failed', 'It broke.');
    return compute(work);
  };
  const ids: number[] = [];
  await expect(runTurn(link, request, failing, () => undefined, (more) => ids.push(...more))).rejects.toThrow(expect.objectContaining({ code: 'run_failed' }) as Error);
  expect(ids).toEqual([4, 5]);
  expect(link.log.at(-1)).toBe('cancel');
  expect(link.session.state).toBe('idle');
  await expect(answerOf(link)).resolves.toEqual([4, 5, 6]);
});
