/** The split changes while an answer is under way (PROTOCOL.md, "A new plan within a turn"). */
import { expect, test } from 'vitest';
import type { Frame } from '../../src/protocol/frame';
import type { Plan, Report, Sampling, Welcome } from '../../src/protocol/messages.generated';
import type { Hidden } from '../../src/session/hidden';
import { ClientSession } from '../../src/session/session';
import type { TurnRequest, Work } from '../../src/session/session';

const BLOCKS = 4;
const WELCOME: Welcome = {
  type: 'welcome', protocol: 1, agent: 'test', model: 'tiny', bundle: '0'.repeat(64), blocks: BLOCKS, hidden_size: 1, vocab_size: 100,
  sla: { ttft_ms: 2000, tpot_ms: 150 }, limits: { max_context: 64, max_rows: 4, max_message_bytes: 4096, idle_timeout_s: 600 },
};
const REPORT: Report = { backend: 'wasm', variant: 'float32', blocks_ready: 4, decode_ms: 1, prefill_ms: 2, prefill_rows: 64, memory_bytes: null, effort: null };
const GREEDY: Sampling = { temperature: 0, top_p: 1, top_k: 0, min_p: 0, repetition_penalty: 1, seed: null };
const REQUEST: TurnRequest = { prompt: [1, 2, 3], maxTokens: 20, sampling: GREEDY, stop: [] };

const plan = (split: number, position: number, turn: number | null): Plan => ({
  type: 'plan', turn, session: 'a'.repeat(32), split, wire: 'float32', max_tokens: 32, position, feasible: true, reason: 'Because.', bound: 'tpot',
  saved: { block_steps: split / BLOCKS, server_time: 0 }, predicted: { ttft_ms: 1, tpot_ms: 1, server_ms: 1 }, rtt_ms: 0,
});
const token = (position: number, id: number): Frame => ({ kind: 'token', dtype: 'int32', turn: 1, position, rows: 1, columns: 1, values: Int32Array.of(id) });
const hidden = (work: Work): Hidden => ({ dtype: 'float32', values: Float32Array.from(work.ids) });

/** What is run, with the split it runs at, and what is sent. */
function drain(session: ClientSession): { ran: [number, number, number][]; sent: [number, number][] } {
  const ran: [number, number, number][] = [];
  const sent: [number, number][] = [];
  for (let work = session.nextWork(); work !== null; work = session.nextWork()) {
    ran.push([work.split, work.span.start, work.span.end]);
    const frame = session.computed(work, hidden(work));
    if (frame !== null) sent.push([frame.position, frame.position + frame.rows]);
  }
  return { ran, sent };
}

/** A prompt of three at `split`, and two tokens, the second of which is not computed yet. */
function answering(split: number): ClientSession {
  const session = new ClientSession();
  session.hello('test', null, null);
  session.receive(WELCOME);
  session.open(REPORT, 'auto', 'float32', 32, 8, false);
  session.receive(plan(split, 0, null));
  session.begin(REQUEST);
  drain(session);
  session.receive(token(3, 7));
  drain(session);
  return session;
}

test('a smaller split while the prompt is computed: what is under way is not sent, and the prompt begins anew', () => {
  const session = new ClientSession();
  session.hello('test', null, null);
  session.receive(WELCOME);
  session.open(REPORT, 'auto', 'float32', 32, 8, false);
  session.receive(plan(3, 0, null));
  session.begin({ ...REQUEST, prompt: [1, 2, 3, 4, 5, 6] });
  const work = session.nextWork();
  const happening = session.receive(plan(0, 0, 1));
  expect(happening).toMatchObject({ type: 'replanned', message: { type: 'adopt', turn: 1 }, frames: [{ position: 0, rows: 4 }, { position: 4, rows: 2 }] });
  expect(work === null ? null : session.computed(work, hidden(work))).toBeNull();
  expect(session.nextWork()).toBeNull();
});

test('a larger split: the client runs its blocks over all it knows, and sends only the new row', () => {
  const session = answering(1);
  const happening = session.receive(plan(3, 4, 1));
  expect(happening).toMatchObject({ type: 'replanned', message: { type: 'adopt', turn: 1 }, frames: [] });
  session.receive(token(4, 8));
  expect(drain(session)).toEqual({ ran: [[3, 0, 4], [3, 4, 5]], sent: [[4, 5]] });
  session.receive(token(5, 9));
  expect(drain(session)).toEqual({ ran: [[3, 5, 6]], sent: [[5, 6]] });
});

test('a smaller split: the history goes up again, at the new boundary', () => {
  const session = answering(3);
  session.receive(token(4, 8));
  session.receive(plan(2, 0, 1));
  expect(drain(session)).toEqual({ ran: [[2, 0, 4], [2, 4, 5]], sent: [[0, 4], [4, 5]] });
});

test('the same split, of a server that holds nothing any more: all hidden states are computed anew, and go up', () => {
  const session = answering(2);
  const stats = { ttft_ms: 1, tpot_ms: 1, queue_ms: 0, server_blocks_run: 1, server_blocks_saved: 1, server_ms_run: 0, server_ms_saved: 0, rtt_ms: 0 };
  session.receive({ type: 'done', turn: 1, finish_reason: 'stop', stop_string: null, tokens: 1, position: 4, stats });
  const { message } = session.begin({ ...REQUEST, prompt: [1, 2, 3, 7, 5] });
  expect([message.turn, message.start]).toEqual([2, 4]);
  expect(drain(session)).toEqual({ ran: [[2, 4, 5]], sent: [[4, 5]] });
  expect(session.receive({ type: 'queued', turn: 2, place: 1 })).toEqual({ type: 'queued', place: 1 });
  expect([session.owed, session.nextWork()]).toEqual(['step', null]);
  expect(session.receive(plan(2, 0, 2))).toMatchObject({ type: 'replanned', message: { type: 'adopt', turn: 2 } });
  expect(drain(session)).toEqual({ ran: [[2, 0, 4], [2, 4, 5]], sent: [[0, 4], [4, 5]] });
  session.receive({ ...token(5, 8), turn: 2 });
  expect(drain(session).sent).toEqual([[5, 6]]);
});

test('to split 0: the ids go up at once, and tokens stream', () => {
  const session = answering(3);
  session.receive(token(4, 8));
  const happening = session.receive(plan(0, 0, 1));
  expect(happening.type === 'replanned' ? happening.frames.map((frame) => [frame.kind, frame.position, ...frame.values]) : null).toEqual([
    ['ids', 0, 1, 2, 3, 7],
    ['ids', 4, 8],
  ]);
  expect(session.nextWork()).toBeNull();
  expect(session.receive(token(5, 9))).toEqual({ type: 'tokens', ids: [9] });
});

test('from split 0: what streamed before is caught up on', () => {
  const session = answering(0);
  session.receive(token(4, 8));
  session.receive(plan(4, 4, 1));
  expect(drain(session)).toEqual({ ran: [[4, 0, 4], [4, 4, 5]], sent: [[4, 5]] });
});

test('what was being computed under the former plan is not sent', () => {
  const session = answering(2);
  session.receive(token(4, 8));
  const work = session.nextWork();
  session.receive(plan(1, 0, 1));
  if (work === null) throw new Error('there is work');
  expect(session.computed(work, hidden(work))).toBeNull();
  expect(drain(session).sent).toEqual([[0, 4], [4, 5]]);
});

test('a turn that is cancelled sends nothing under the new plan, which stays in force', () => {
  const session = answering(2);
  session.receive(token(4, 8));
  session.cancel();
  expect(session.receive(plan(0, 0, 1))).toMatchObject({ type: 'replanned', frames: [] });
  expect(session.nextWork()).toBeNull();
  session.receive({
    type: 'done', turn: 1, finish_reason: 'cancelled', stop_string: null, tokens: 2, position: 0,
    stats: { ttft_ms: 1, tpot_ms: 1, queue_ms: 0, server_blocks_run: 1, server_blocks_saved: 1, server_ms_run: 0, server_ms_saved: 0, rtt_ms: 0 },
  });
  expect(session.begin({ ...REQUEST, prompt: [1, 2, 3, 7] }).message.start).toBe(0);
});

test('a plan of another turn, or one with more blocks than there are, is refused', () => {
  expect(() => answering(2).receive(plan(1, 0, 2))).toThrow(expect.objectContaining({ code: 'unexpected_message' }));
  expect(() => answering(2).receive(plan(5, 0, 1))).toThrow(expect.objectContaining({ code: 'malformed_message' }));
});
