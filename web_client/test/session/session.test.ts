import { describe, expect, test } from 'vitest';
import type { Frame } from '../../src/protocol/frame';
import type { Plan, Report, Sampling, Welcome } from '../../src/protocol/messages.generated';
import type { Hidden } from '../../src/session/hidden';
import { ClientSession } from '../../src/session/session';
import type { TurnRequest, Work } from '../../src/session/session';

const BLOCKS = 4;
const HIDDEN = 2;
const LIMITS = { max_context: 64, max_rows: 4, max_message_bytes: 4096, idle_timeout_s: 600 };
const WELCOME: Welcome = {
  type: 'welcome', protocol: 1, agent: 'test', model: 'tiny', bundle: '0'.repeat(64), blocks: BLOCKS, hidden_size: HIDDEN, vocab_size: 100,
  sla: { ttft_ms: 2000, tpot_ms: 150 }, limits: LIMITS,
};
const REPORT: Report = { backend: 'webgpu', variant: 'float32', blocks_ready: 4, decode_ms: 1, prefill_ms: 2, prefill_rows: 64, memory_bytes: null, effort: null };
const GREEDY: Sampling = { temperature: 0, top_p: 1, top_k: 0, min_p: 0, repetition_penalty: 1, seed: null };

const plan = (split: number, position = 0, more: Partial<Plan> = {}): Plan => ({
  type: 'plan', turn: null, session: 'a'.repeat(32), split, wire: 'float32', max_tokens: 32, position, feasible: true, reason: 'Because.', bound: 'forced',
  saved: { block_steps: split / BLOCKS, server_time: 0 }, predicted: { ttft_ms: 1, tpot_ms: 1, server_ms: 1 }, rtt_ms: 0, ...more,
});
const done = (turn: number, position: number, reason: 'stop' | 'length' | 'cancelled' = 'stop') => ({
  type: 'done' as const, turn, finish_reason: reason, stop_string: null, tokens: 0, position,
  stats: { ttft_ms: 1, tpot_ms: null, queue_ms: 0, server_blocks_run: 1, server_blocks_saved: 1, server_ms_run: 0, server_ms_saved: 0, rtt_ms: 0 },
});
const refusal = (code: string, turn: number | null, expected: number | null = null, fatal = false) => ({
  type: 'error' as const, code, message: 'Do something.', fatal, turn, expected_position: expected,
});
const token = (turn: number, position: number, ...ids: number[]): Frame => ({
  kind: 'token', dtype: 'int32', turn, position, rows: ids.length, columns: 1, values: Int32Array.from(ids),
});
const request = (prompt: number[], more: Partial<TurnRequest> = {}): TurnRequest => ({ prompt, maxTokens: 8, sampling: GREEDY, stop: [], ...more });

function opened(split: number, more: Partial<Plan> = {}): ClientSession {
  const session = new ClientSession();
  session.hello('test', null, null);
  session.receive(WELCOME);
  session.open(REPORT, 'auto', 'float32', 32, 8, false);
  session.receive(plan(split, 0, more));
  return session;
}

/** Hidden states whose every value is the row's position. */
const hiddenOf = (work: Work): Hidden => ({
  dtype: 'float32',
  values: Float32Array.from({ length: work.ids.length * HIDDEN }, (_, index) => work.span.start + Math.floor(index / HIDDEN)),
});

/** Do all the work there is; what was run and what was sent, as positions. */
function drain(session: ClientSession): { ran: [number, number][]; sent: [number, number][] } {
  const ran: [number, number][] = [];
  const sent: [number, number][] = [];
  for (let work = session.nextWork(); work !== null; work = session.nextWork()) {
    ran.push([work.span.start, work.span.end]);
    const frame = session.computed(work, hiddenOf(work));
    if (frame === null) continue;
    expect(frame.values[0], 'rows carry their own position').toBe(frame.position);
    sent.push([frame.position, frame.position + frame.rows]);
  }
  return { ran, sent };
}

describe('opening', () => {
  test('hello, open and their answers lead to idle', () => {
    const session = new ClientSession();
    expect(session.hello('test/1', null, 'f'.repeat(64))).toEqual({ type: 'hello', protocol: 1, agent: 'test/1', model: null, bundle: 'f'.repeat(64) });
    expect(session.receive(WELCOME)).toEqual({ type: 'welcomed', welcome: WELCOME });
    expect(session.open(REPORT, 2, 'float16', 32, 8, false)).toEqual({ type: 'open', client: REPORT, split: 2, wire: 'float16', max_tokens: 32, expected_prompt_tokens: 8, resume: null, queue: false });
    expect(session.receive(plan(2)).type).toBe('planned');
    expect(session.state).toBe('idle');
  });

  test('after a refused open another may be sent', () => {
    const session = new ClientSession();
    session.hello('test', null, null);
    session.receive(WELCOME);
    session.open(REPORT, 'auto', 'float16', 32, 8, false);
    expect(session.receive(refusal('server_full', null))).toMatchObject({ type: 'refused', of: 'open', error: { code: 'server_full', message: 'Do something.' } });
    session.open(REPORT, 'auto', 'float16', 16, 8, false);
    expect(session.state).toBe('planning');
  });

  test('a server that is full tells a place in its queue until there is a plan or a refusal', () => {
    const session = new ClientSession();
    session.hello('test', null, null);
    session.receive(WELCOME);
    expect(session.open(REPORT, 'auto', 'float32', 32, 8, true).queue).toBe(true);
    expect(session.owed).toBe('reply');
    for (const place of [2, 1]) expect(session.receive({ type: 'queued', turn: null, place })).toEqual({ type: 'queued', place });
    expect([session.state, session.owed]).toEqual(['planning', 'step']);
    expect(session.receive(refusal('server_full', null))).toMatchObject({ type: 'refused', of: 'open' });
    session.open(REPORT, 'auto', 'float32', 32, 8, true);
    expect(session.owed).toBe('reply');
    session.receive(plan(0, 0));
    expect(session.state).toBe('idle');
    expect(() => session.receive({ type: 'queued', turn: null, place: 1 })).toThrow(/sent `queued` while the session is idle/);
    expect(session.receive({ type: 'queued', turn: 9, place: 1 }), 'of no turn that is under way').toEqual({ type: 'nothing' });
  });

  test('a fatal error ends the session, and nothing is heard after it', () => {
    const session = new ClientSession();
    session.hello('test', null, 'f'.repeat(64));
    expect(session.receive(refusal('bundle_mismatch', null, null, true))).toMatchObject({ type: 'ended', error: { code: 'bundle_mismatch' } });
    expect(session.receive(WELCOME)).toEqual({ type: 'nothing' });
  });

  test('a message that is not due is refused', () => {
    const session = new ClientSession();
    expect(() => session.receive(plan(0))).toThrow(expect.objectContaining({ code: 'unexpected_message' }));
    expect(() => session.begin(request([1]))).toThrow(expect.objectContaining({ code: 'unexpected_message' }));
  });
});

describe('split 0', () => {
  test('the ids go up at once and tokens stream down', () => {
    const session = opened(0);
    const { message, frames } = session.begin(request([5, 6, 7, 8, 9]));
    expect(message).toEqual({ type: 'turn', turn: 1, start: 0, prompt_tokens: 5, max_tokens: 8, sampling: GREEDY, stop: [], seen_ids: [] });
    expect(frames.map(({ kind, position, rows, values }) => ({ kind, position, rows, values: [...values] }))).toEqual([
      { kind: 'ids', position: 0, rows: 4, values: [5, 6, 7, 8] },
      { kind: 'ids', position: 4, rows: 1, values: [9] },
    ]);
    expect(session.nextWork()).toBeNull();
    expect(session.receive(token(1, 5, 20, 21))).toEqual({ type: 'tokens', ids: [20, 21] });
    expect(session.receive(token(1, 7, 22))).toEqual({ type: 'tokens', ids: [22] });
    expect(session.nextWork()).toBeNull();
    expect(session.receive(done(1, 7))).toMatchObject({ type: 'done', failure: null });
    expect(session.state).toBe('idle');
  });

  test('the next turn sends only what is new to the server', () => {
    const session = opened(0);
    session.begin(request([1, 2, 3]));
    session.receive(token(1, 3, 20, 21));
    session.receive(done(1, 4)); // the last token was sent but not run
    const { message, frames } = session.begin(request([1, 2, 3, 20, 21, 4]));
    expect(message).toMatchObject({ turn: 2, start: 4, prompt_tokens: 2 });
    expect(frames.map(({ position, values }) => [position, ...values])).toEqual([[4, 21, 4]]);
  });

  test('an edited conversation goes back to where it differs', () => {
    const session = opened(0);
    session.begin(request([1, 2, 3]));
    session.receive(token(1, 3, 20));
    session.receive(done(1, 4));
    expect(session.begin(request([1, 9, 3])).message).toMatchObject({ start: 1, prompt_tokens: 2 });
  });

  test('asking the same again still sends one row', () => {
    const session = opened(0);
    session.begin(request([1, 2, 3]));
    session.receive(token(1, 3, 20));
    session.receive(done(1, 4));
    expect(session.begin(request([1, 2, 3])).message).toMatchObject({ start: 2, prompt_tokens: 1 });
  });
});

describe('a split between', () => {
  test('the prompt is computed and sent chunk by chunk, each token row by row', () => {
    const session = opened(2);
    expect(session.begin(request([1, 2, 3, 4, 5, 6])).frames).toEqual([]);
    expect(drain(session)).toEqual({ ran: [[0, 4], [4, 6]], sent: [[0, 4], [4, 6]] });
    session.receive(token(1, 6, 20));
    expect(drain(session)).toEqual({ ran: [[6, 7]], sent: [[6, 7]] });
    session.receive(token(1, 7, 21));
    session.receive(done(1, 7));
    expect(session.nextWork()).toBeNull();
  });

  test('the token that fills the answer is not computed', () => {
    const session = opened(2);
    session.begin(request([1, 2], { maxTokens: 2 }));
    drain(session);
    session.receive(token(1, 2, 20));
    drain(session);
    session.receive(token(1, 3, 21));
    expect(session.nextWork()).toBeNull();
  });

  test('the second turn computes only what is new', () => {
    const session = opened(2);
    session.begin(request([1, 2, 3]));
    drain(session);
    session.receive(token(1, 3, 20));
    drain(session);
    session.receive(token(1, 4, 21));
    session.receive(done(1, 4));
    expect(session.begin(request([1, 2, 3, 20, 21, 9])).message).toMatchObject({ turn: 2, start: 4, prompt_tokens: 2 });
    expect(drain(session)).toEqual({ ran: [[4, 6]], sent: [[4, 6]] });
  });

  test('what the client holds beyond the common prefix is computed again', () => {
    const session = opened(2);
    session.begin(request([1, 2, 3]));
    drain(session);
    session.receive(token(1, 3, 20));
    session.receive(done(1, 3));
    expect(session.begin(request([1, 7, 8])).message).toMatchObject({ start: 1 });
    expect(drain(session)).toEqual({ ran: [[1, 3]], sent: [[1, 3]] });
  });

  test('a larger split catches up on what the server keeps, and sends nothing for it', () => {
    const session = opened(0);
    session.begin(request([1, 2, 3, 4, 5]));
    session.receive(token(1, 5, 20));
    session.receive(done(1, 6));
    expect(session.report({ ...REPORT, blocks_ready: 3 }, 'auto', 8)).toMatchObject({ type: 'report', split: 'auto', client: { blocks_ready: 3 } });
    session.receive(plan(3, 6));
    expect(session.begin(request([1, 2, 3, 4, 5, 20, 7])).message).toMatchObject({ start: 6, prompt_tokens: 1 });
    expect(drain(session)).toEqual({ ran: [[0, 4], [4, 6], [6, 7]], sent: [[6, 7]] });
  });

  test('a smaller split begins at 0 again', () => {
    const session = opened(3);
    session.begin(request([1, 2, 3]));
    drain(session);
    session.receive(token(1, 3, 20));
    session.receive(done(1, 3));
    session.report(REPORT, 1, 8);
    session.receive(plan(1, 0));
    expect(session.begin(request([1, 2, 3, 20, 4])).message).toMatchObject({ start: 0, prompt_tokens: 5 });
    expect(drain(session).sent).toEqual([[0, 4], [4, 5]]);
  });

  test('the same split keeps everything', () => {
    const session = opened(2);
    session.begin(request([1, 2, 3]));
    drain(session);
    session.receive(token(1, 3, 20));
    session.receive(done(1, 3));
    session.report(REPORT, 2, 8);
    session.receive(plan(2, 3));
    session.begin(request([1, 2, 3, 20]));
    expect(drain(session).ran).toEqual([[3, 4]]);
  });

  test('a refused report leaves the plan in force', () => {
    const session = opened(2);
    session.report(REPORT, 9, 8);
    expect(session.receive(refusal('split_unavailable', null))).toMatchObject({ type: 'refused', of: 'report' });
    expect(session.plan?.split).toBe(2);
    expect(session.state).toBe('idle');
  });

  test('a client that lost its keys and values computes them again', () => {
    const session = opened(2);
    session.begin(request([1, 2, 3]));
    drain(session);
    session.receive(token(1, 3, 20));
    session.receive(done(1, 3));
    session.forgetClientKv();
    session.begin(request([1, 2, 3, 20]));
    expect(drain(session)).toEqual({ ran: [[0, 3], [3, 4]], sent: [[3, 4]] });
  });

  test('also when it loses them while it computes', () => {
    const session = opened(2);
    session.begin(request([1, 2, 3]));
    const work = session.nextWork();
    expect(work).not.toBeNull();
    if (work === null) return;
    session.forgetClientKv();
    expect(session.computed(work, hiddenOf(work))).toBeNull();
    expect(drain(session)).toEqual({ ran: [[0, 3]], sent: [[0, 3]] });
  });

  test('hidden states travel in the dtype of the plan', () => {
    const session = opened(1, { wire: 'float16' });
    session.begin(request([1]));
    const work = session.nextWork();
    expect(work).not.toBeNull();
    if (work === null) return;
    expect(session.computed(work, { dtype: 'float32', values: Float32Array.of(1, -2) })).toMatchObject({ dtype: 'float16', values: Uint16Array.of(0x3c00, 0xc000) });
  });

  test.each([
    ['float32', NaN],
    ['float16', Infinity],
    ['float16', 70000],
  ] as const)('on a %s wire %d is not sent', (wire, value) => {
    const session = opened(1, { wire });
    session.begin(request([1]));
    const work = session.nextWork();
    expect(work).not.toBeNull();
    if (work !== null) expect(() => session.computed(work, { dtype: 'float32', values: Float32Array.of(1, value) })).toThrow(expect.objectContaining({ code: 'not_finite' }));
  });
});

describe('all blocks here', () => {
  test('only the last row of the prompt is sent, then each token', () => {
    const session = opened(BLOCKS);
    session.begin(request([1, 2, 3, 4, 5, 6]));
    expect(drain(session)).toEqual({ ran: [[0, 4], [4, 6]], sent: [[5, 6]] });
    session.receive(token(1, 6, 20));
    expect(drain(session)).toEqual({ ran: [[6, 7]], sent: [[6, 7]] });
  });
});

describe('turns', () => {
  test('stale tokens and repeats are ignored, a gap is an error', () => {
    const session = opened(0);
    session.begin(request([1, 2]));
    session.receive(token(1, 2, 20));
    expect(session.receive(token(1, 2, 20))).toEqual({ type: 'nothing' });
    session.receive(done(1, 3));
    expect(session.receive(token(1, 3, 21))).toEqual({ type: 'nothing' });
    session.begin(request([1, 2, 20, 3]));
    expect(session.receive(token(1, 4, 21))).toEqual({ type: 'nothing' });
    expect(session.receive(done(1, 3))).toEqual({ type: 'nothing' });
    expect(() => session.receive(token(2, 6, 21))).toThrow(expect.objectContaining({ code: 'position_gap' }));
  });

  test('a cancel takes the work away and the turn ends with done', () => {
    const session = opened(2);
    session.begin(request([1, 2, 3, 4, 5, 6]));
    const work = session.nextWork();
    expect(session.cancel()).toEqual({ type: 'cancel', turn: 1 });
    expect(session.cancel()).toBeNull();
    expect(session.nextWork()).toBeNull();
    if (work !== null) expect(session.computed(work, hiddenOf(work))).toBeNull();
    expect(session.receive(done(1, 0, 'cancelled'))).toMatchObject({ type: 'done', done: { finish_reason: 'cancelled' } });
    expect(session.begin(request([1, 2, 3, 4, 5, 6])).message).toMatchObject({ turn: 2, start: 0 });
    expect(drain(session).sent).toEqual([[0, 4], [4, 6]]);
  });

  test('a refused turn leaves the session open', () => {
    const session = opened(0);
    session.begin(request([1, 2]));
    expect(session.receive(refusal('context_overflow', 1))).toMatchObject({ type: 'refused', of: 'turn', error: { code: 'context_overflow' } });
    expect(session.begin(request([1, 2])).message).toMatchObject({ turn: 2, start: 0 });
  });

  test('an error about a frame gives the turn up, and done tells why', () => {
    const session = opened(2);
    session.begin(request([1, 2]));
    drain(session);
    expect(session.receive(refusal('not_finite', 1, 0))).toEqual({ type: 'give_up', message: { type: 'cancel', turn: 1 } });
    expect(session.receive(refusal('position_gap', 1, 0))).toEqual({ type: 'nothing' });
    expect(session.receive(done(1, 0, 'cancelled'))).toMatchObject({ type: 'done', failure: { code: 'not_finite' } });
  });

  test('a prompt that does not fit is refused here, and the answer is kept within the session', () => {
    const session = opened(0);
    expect(() => session.begin(request(Array.from({ length: 32 }, () => 1)))).toThrow(expect.objectContaining({ code: 'context_overflow' }));
    expect(session.state).toBe('idle');
    expect(session.begin(request(Array.from({ length: 30 }, () => 1))).message).toMatchObject({ prompt_tokens: 30, max_tokens: 2 });
  });

  test('ids seen before are named only when they are penalised', () => {
    const session = opened(0);
    expect(session.begin(request([3, 3, 4], { sampling: { ...GREEDY, repetition_penalty: 1.1 } })).message.seen_ids).toEqual([3, 4]);
  });
});

describe('what the server owes', () => {
  test('is an answer to hello and open, then nothing until a turn', () => {
    const session = new ClientSession();
    expect(session.owed).toBeNull();
    session.hello('test', null, null);
    expect(session.owed).toBe('reply');
    session.receive(WELCOME);
    expect(session.owed).toBeNull();
    session.open(REPORT, 'auto', 'float32', 32, 8, false);
    expect(session.owed).toBe('reply');
    session.receive(plan(0));
    expect(session.owed).toBeNull();
  });

  test('is a step while this client has nothing to compute', () => {
    const session = opened(2);
    session.begin(request([1, 2, 3]));
    expect(session.owed, 'the prompt is still computed here').toBeNull();
    drain(session);
    expect(session.owed).toBe('step');
    session.receive(token(1, 3, 9));
    expect(session.owed).toBeNull();
    drain(session);
    expect(session.owed).toBe('step');
    session.receive(done(1, 4));
    expect(session.owed).toBeNull();
  });

  test('is a prompt reply once the turn is cancelled', () => {
    const session = opened(2);
    session.begin(request([1, 2, 3]));
    session.cancel();
    expect(session.owed).toBe('reply');
    session.receive(done(1, 0, 'cancelled'));
    expect(session.owed).toBeNull();
  });

  test('is nothing once the session is closed', () => {
    const session = opened(0);
    session.begin(request([1, 2, 3]));
    expect(session.owed).toBe('step');
    session.close();
    expect(session.owed).toBeNull();
  });
});
