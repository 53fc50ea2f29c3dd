/** A session is taken up again after its connection was lost (PROTOCOL.md, "Taking a session up again"). */
import { expect, test } from 'vitest';
import type { Frame } from '../../src/protocol/frame';
import type { Plan, Report, Sampling, Welcome } from '../../src/protocol/messages.generated';
import type { Hidden } from '../../src/session/hidden';
import { ClientSession } from '../../src/session/session';
import type { TurnRequest, Work } from '../../src/session/session';

const BLOCKS = 4;
const WELCOME: Welcome = {
  type: 'welcome', protocol: 1, agent: 'test', model: 'tiny', bundle: '0'.repeat(64), blocks: BLOCKS, hidden_size: 1, vocab_size: 100,
  sla: { ttft_ms: 2000, tpot_ms: 150 }, limits: { max_context: 64, max_rows: 2, max_message_bytes: 4096, idle_timeout_s: 600 },
};
const REPORT: Report = { backend: 'wasm', variant: 'float32', blocks_ready: 4, decode_ms: 1, prefill_ms: 2, prefill_rows: 64, memory_bytes: null, effort: null };
const GREEDY: Sampling = { temperature: 0, top_p: 1, top_k: 0, min_p: 0, repetition_penalty: 1, seed: null };
const REQUEST: TurnRequest = { prompt: [1, 2, 3], maxTokens: 20, sampling: GREEDY, stop: [] };
const [FIRST, NEXT] = ['1'.repeat(64), '2'.repeat(64)];

const plan = (split: number, position: number, resume?: Partial<NonNullable<Plan['resume']>>): Plan => ({
  type: 'plan', turn: null, session: 'a'.repeat(32), split, wire: 'float32', max_tokens: 32, position, feasible: true, reason: 'Because.', bound: 'tpot',
  saved: { block_steps: split / BLOCKS, server_time: 0 }, predicted: { ttft_ms: 1, tpot_ms: 1, server_ms: 1 }, rtt_ms: 0,
  ...(resume === undefined ? {} : { resume: { token: FIRST, grace_s: 60, turn: 0, prompt_end: 0, tokens: [], ...resume } }),
});
const token = (position: number, id: number): Frame => ({ kind: 'token', dtype: 'int32', turn: 1, position, rows: 1, columns: 1, values: Int32Array.of(id) });
const refusal = (code: string, turn: number | null, expected: number | null = null) => ({ type: 'error' as const, code, message: 'No.', fatal: false, turn, expected_position: expected });
const hidden = (work: Work): Hidden => ({ dtype: 'float32', values: Float32Array.from(work.ids) });

function drain(session: ClientSession): [number, number][] {
  const sent: [number, number][] = [];
  for (let work = session.nextWork(); work !== null; work = session.nextWork()) {
    const frame = session.computed(work, hidden(work));
    if (frame !== null) sent.push([frame.position, frame.position + frame.rows]);
  }
  return sent;
}

function opened(split: number, resume: Partial<NonNullable<Plan['resume']>> | undefined = {}): ClientSession {
  const session = new ClientSession();
  session.hello('test', null, null);
  session.receive(WELCOME);
  expect(session.open(REPORT, 'auto', 'float32', 32, 8, false).resume).toBeNull();
  session.receive(plan(split, 0, resume));
  return session;
}

/** A prompt of three at `split`, and one token. */
function answering(split: number): ClientSession {
  const session = opened(split);
  session.begin(REQUEST);
  drain(session);
  session.receive(token(3, 10));
  return session;
}

/** Connects again; what `open` asks for. */
function again(session: ClientSession): unknown {
  expect(session.lost()).toBe(true);
  session.hello('test', null, null);
  session.receive(WELCOME);
  return session.open(REPORT, 'auto', 'float32', 32, 8, false).resume;
}

test('the turn goes on where the server waits, with the tokens that were missed', () => {
  const session = answering(2);
  expect(again(session)).toEqual({ session: 'a'.repeat(32), token: FIRST, turn: 1, position: 4 });
  expect(session.receive(plan(2, 4, { token: NEXT, turn: 1, prompt_end: 3, tokens: [11] }))).toMatchObject({ type: 'resumed', ids: [11], message: null, frames: [] });
  expect(drain(session)).toEqual([[4, 5]]);
  expect(session.receive(token(4, 11)), 'told twice').toEqual({ type: 'nothing' });
  expect(session.receive(token(5, 12))).toEqual({ type: 'tokens', ids: [12] });
  expect(again(session)).toMatchObject({ token: NEXT, position: 6 });
});

test('rows of the prompt that did not arrive go up again, by the chunks they had', () => {
  const session = opened(2);
  session.begin(REQUEST);
  expect(drain(session)).toEqual([[0, 2], [2, 3]]);
  again(session);
  session.receive(plan(2, 2, { turn: 1, prompt_end: 3 }));
  expect(drain(session)).toEqual([[2, 3]]);
});

test('with split 0 the ids that are missing go up at once, and none that the server drew itself', () => {
  const session = opened(0);
  session.begin(REQUEST);
  again(session);
  expect(session.receive(plan(0, 2, { turn: 1, prompt_end: 3 }))).toMatchObject({ type: 'resumed', frames: [{ position: 2, rows: 1 }] });
  session.receive(token(3, 10));
  again(session);
  expect(session.receive(plan(0, 3, { turn: 1, prompt_end: 3, tokens: [11, 12] }))).toMatchObject({ ids: [11, 12], frames: [] });
});

test('a turn that the server never heard of begins once more', () => {
  const session = opened(0);
  const { message } = session.begin(REQUEST);
  again(session);
  expect(session.receive(plan(0, 0, { turn: 0 }))).toMatchObject({ type: 'resumed', ids: [], message, frames: [{ position: 0, rows: 2 }, { position: 2, rows: 1 }] });
});

test('a plan that was made meanwhile is in force, and needs no adopt', () => {
  const session = answering(2);
  again(session);
  session.receive(plan(3, 0, { turn: 1, prompt_end: 4 }));
  expect(drain(session), 'a third block knows nothing of the conversation, and the server holds nothing').toEqual([[0, 2], [2, 4]]);
});

test('between turns nothing is missing', () => {
  const session = answering(2);
  const stats = { ttft_ms: 1, tpot_ms: null, queue_ms: 0, server_blocks_run: 1, server_blocks_saved: 1, server_ms_run: 0, server_ms_saved: 0, rtt_ms: 0 };
  session.receive({ type: 'done', turn: 1, finish_reason: 'stop', stop_string: null, tokens: 1, position: 3, stats });
  expect(again(session)).toMatchObject({ turn: null, position: 4 });
  expect(session.receive(plan(2, 3, { turn: 1 }))).toMatchObject({ type: 'planned' });
  expect(session.begin({ ...REQUEST, prompt: [1, 2, 3, 10, 5] }).message).toMatchObject({ turn: 2, start: 3 });
});

test('a server that holds nothing gets a new session, from the begin', () => {
  const session = answering(2);
  again(session);
  expect(session.receive(refusal('resume_refused', null))).toMatchObject({ type: 'refused', of: 'open' });
  expect(session.open(REPORT, 'auto', 'float32', 32, 8, false).resume).toBeNull();
  session.receive(plan(2, 0, {}));
  expect(session.begin({ ...REQUEST, prompt: [1, 2, 3, 10] }).message).toMatchObject({ turn: 1, start: 0, prompt_tokens: 4 });
  expect(drain(session)).toEqual([[0, 2], [2, 4]]);
});

test('without a token, after a cancel and after its end a session cannot be taken up', () => {
  expect(new ClientSession().lost()).toBe(false);
  const cancelled = answering(2);
  cancelled.cancel();
  const closed = opened(0);
  closed.close();
  const ended = opened(0);
  ended.receive({ ...refusal('idle_timeout', null), fatal: true });
  for (const session of [cancelled, closed, ended]) expect(session.lost()).toBe(false);
});

test('frames that got out of order end the connection and not the session', () => {
  const session = answering(2);
  expect(session.receive(refusal('position_gap', 1, 2))).toMatchObject({ type: 'ended', error: { code: 'position_gap' } });
  again(session);
  session.receive(plan(2, 2, { turn: 1, prompt_end: 3 }));
  expect(drain(session)).toEqual([[2, 4]]);
});

test('who hears the end of a turn misses a token that did not come, and asks for it', () => {
  const session = answering(2);
  const stats = { ttft_ms: 1, tpot_ms: null, queue_ms: 0, server_blocks_run: 1, server_blocks_saved: 1, server_ms_run: 0, server_ms_saved: 0, rtt_ms: 0 };
  const done = { type: 'done' as const, turn: 1, finish_reason: 'length' as const, stop_string: null, tokens: 2, position: 4, stats };
  expect(() => session.receive(done)).toThrow(expect.objectContaining({ code: 'position_gap' }));
  again(session);
  expect(session.receive(plan(2, 4, { turn: 1, prompt_end: 3, tokens: [11] }))).toMatchObject({ ids: [11] });
  expect(session.receive(done)).toMatchObject({ type: 'done', failure: null });
});
