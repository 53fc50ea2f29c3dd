import { afterEach, expect, test, vi } from 'vitest';
import type { ConnectionError } from '../../src/protocol/errors';
import type { ClientMessage, Plan, Report, ServerMessage, Welcome } from '../../src/protocol/messages.generated';
import { PATIENCE_S } from '../../src/session/patience';
import { ServerLink } from '../../src/worker/link';
import type { EverySecond } from '../../src/worker/link';
import { runTurn } from '../../src/worker/turn';

const REPORT: Report = { backend: 'none', variant: 'float32', blocks_ready: 0, decode_ms: null, prefill_ms: null, prefill_rows: 64, memory_bytes: null, effort: null };
const WELCOME: Welcome = {
  type: 'welcome', protocol: 1, agent: 'test', model: 'tiny', bundle: '0'.repeat(64), blocks: 2, hidden_size: 1, vocab_size: 100,
  sla: { ttft_ms: 2000, tpot_ms: 150 }, limits: { max_context: 64, max_rows: 2, max_message_bytes: 4096, idle_timeout_s: 600 },
};
const PLAN: Plan = {
  type: 'plan', turn: null, session: 'a'.repeat(32), split: 0, wire: 'float32', max_tokens: 32, position: 0, feasible: true, reason: '', bound: 'forced', saved: { block_steps: 0, server_time: 0 },
  predicted: { ttft_ms: 1, tpot_ms: 1, server_ms: 1 }, rtt_ms: 0,
};
const TURN = { prompt: [1, 2, 3], maxTokens: 8, sampling: { temperature: 0, top_p: 1, top_k: 0, min_p: 0, repetition_penalty: 1, seed: null }, stop: [] };

/** A connection whose other end is answered by hand, and may as well be dead: then no `close` comes either. */
class FakeSocket extends EventTarget {
  static last: FakeSocket;
  bufferedAmount = 0;
  closed = false;
  readonly sent: string[] = [];

  constructor(
    readonly url: string,
    readonly protocols: readonly string[],
  ) {
    super();
    FakeSocket.last = this;
    queueMicrotask(() => this.dispatchEvent(new Event('open')));
  }

  send(data: string | Uint8Array): void {
    this.sent.push(typeof data === 'string' ? (JSON.parse(data) as ClientMessage).type : 'frame');
  }

  close(): void {
    this.closed = true;
  }

  hear(message: ServerMessage): void {
    this.dispatchEvent(new MessageEvent('message', { data: JSON.stringify(message) }));
  }
}

/** Seconds pass when the test says so. */
class Seconds {
  private readonly calls = new Set<() => void>();
  readonly every: EverySecond = (call) => {
    this.calls.add(call);
    return () => this.calls.delete(call);
  };

  get running(): number {
    return this.calls.size;
  }

  pass(seconds: number): void {
    for (let second = 0; second < seconds; second += 1) for (const call of [...this.calls]) call();
  }
}

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));
const lost = expect.objectContaining({ name: 'ConnectionError', code: 'silent' }) as ConnectionError;

async function connecting(): Promise<{ link: Promise<ServerLink>; seconds: Seconds; socket: FakeSocket; closed: () => number }> {
  vi.stubGlobal('WebSocket', FakeSocket);
  const seconds = new Seconds();
  const onClose = vi.fn();
  const link = ServerLink.connect({ server: 'http://test' }, 'test', null, onClose, seconds.every);
  link.catch(() => undefined);
  await settle();
  return { link, seconds, socket: FakeSocket.last, closed: () => onClose.mock.calls.length };
}

async function opened(plan: Plan = PLAN): Promise<{ link: ServerLink; seconds: Seconds; socket: FakeSocket; closed: () => number }> {
  const { link, ...rest } = await connecting();
  rest.socket.hear(WELCOME);
  const open = (await link).openSession({ report: REPORT, split: 0, wire: 'float32', maxTokens: 32, expectedPromptTokens: 8, queue: false });
  rest.socket.hear(plan);
  await open;
  return { link: await link, ...rest };
}

/** A session is asked for and the server has no room: `places` are those that the link was told. */
async function inLine(): Promise<{ open: Promise<Plan>; places: (number | null)[]; seconds: Seconds; socket: FakeSocket }> {
  const { link: connected, seconds, socket } = await connecting();
  socket.hear(WELCOME);
  const link = await connected;
  const places: (number | null)[] = [];
  link.onPlace = (place) => places.push(place);
  const open = link.openSession({ report: REPORT, split: 0, wire: 'float32', maxTokens: 32, expectedPromptTokens: 8, queue: true });
  return { open, places, seconds, socket };
}

afterEach(() => {
  vi.unstubAllGlobals();
});

test('a welcome that never comes is a lost connection', async () => {
  const { link, seconds, socket, closed } = await connecting();
  seconds.pass(PATIENCE_S.reply + 1);
  await expect(link).rejects.toThrow(lost);
  expect([socket.closed, closed(), seconds.running]).toEqual([true, 1, 0]);
});

test('who stands in line hears its place, waits as long as the server speaks, and goes on by itself', async () => {
  const { open, places, seconds, socket } = await inLine();
  for (const place of [3, 3, 1]) {
    socket.hear({ type: 'queued', turn: null, place });
    seconds.pass(PATIENCE_S.step - 1);
  }
  socket.hear(PLAN);
  expect(await open).toEqual(PLAN);
  expect(places).toEqual([3, 3, 1, null]);
});

test('a server that falls silent while one stands in line is lost, and the place with it', async () => {
  const { open, places, seconds, socket } = await inLine();
  socket.hear({ type: 'queued', turn: null, place: 2 });
  seconds.pass(PATIENCE_S.step + 1);
  await expect(open).rejects.toThrow(lost);
  expect(places).toEqual([2, null]);
});

test('a plan that never comes is a lost connection', async () => {
  const { link, seconds } = await opened();
  const replan = link.replan(REPORT, 0, 8);
  seconds.pass(PATIENCE_S.reply + 1);
  await expect(replan).rejects.toThrow(lost);
  expect(link.alive).toBe(false);
});

test('a stop that the server never confirms is a lost connection, much sooner than a slow answer', async () => {
  const { link, seconds } = await opened();
  const turn = runTurn(link, TURN, () => Promise.reject(new Error('nothing to compute')), () => undefined, () => undefined);
  await settle();
  seconds.pass(PATIENCE_S.reply + 1);
  expect(link.alive).toBe(true);
  const cancel = link.session.cancel();
  if (cancel !== null) link.send(cancel);
  seconds.pass(PATIENCE_S.reply + 1);
  await expect(turn).rejects.toThrow(lost);
});

test('a turn that hears nothing for long is lost', async () => {
  const { link, seconds } = await opened();
  const turn = runTurn(link, TURN, () => Promise.reject(new Error('nothing to compute')), () => undefined, () => undefined);
  await settle();
  seconds.pass(PATIENCE_S.step);
  expect(link.alive).toBe(true);
  seconds.pass(1);
  await expect(turn).rejects.toThrow(lost);
});

test('frames that pile up and do not leave are a lost connection; while they leave it is only slow', async () => {
  const { link, seconds, socket } = await opened();
  socket.bufferedAmount = 2 ** 30;
  for (let second = 0; second < 2 * PATIENCE_S.step; second += 1) {
    socket.bufferedAmount -= 1;
    seconds.pass(1);
  }
  expect(link.alive).toBe(true);
  seconds.pass(PATIENCE_S.step + 1);
  expect(link.alive).toBe(false);
});

test('an idle session waits for ever, and a closed one waits for nothing', async () => {
  const { link, seconds } = await opened();
  seconds.pass(10_000);
  expect(link.alive).toBe(true);
  link.close();
  expect(seconds.running).toBe(0);
});

test('a turn goes on over a new connection: first what was missed, then what comes', async () => {
  const { link, socket } = await opened({ ...PLAN, resume: { token: '1'.repeat(64), grace_s: 60, turn: 0, prompt_end: 0, tokens: [] } });
  const ids: number[] = [];
  const go = (on: ServerLink, request: typeof TURN | null): ReturnType<typeof runTurn> =>
    runTurn(on, request, () => Promise.reject(new Error('nothing to compute')), () => undefined, (more) => ids.push(...more));
  const turn = go(link, TURN);
  await settle();
  socket.dispatchEvent(new Event('close'));
  await expect(turn).rejects.toThrow('connection to the server was lost');
  expect(link.session.lost()).toBe(true);

  const connected = ServerLink.connect({ server: 'http://test' }, 'test', null, () => undefined, () => () => undefined, link.session);
  await settle();
  const second = FakeSocket.last;
  second.hear(WELCOME);
  const next = await connected;
  const open = next.openSession({ report: REPORT, split: 0, wire: 'float32', maxTokens: 32, expectedPromptTokens: 8, queue: false });
  second.hear({ ...PLAN, position: 2, resume: { token: '2'.repeat(64), grace_s: 60, turn: 1, prompt_end: 3, tokens: [7, 8] } });
  const stats = { ttft_ms: 1, tpot_ms: null, queue_ms: 0, server_blocks_run: 1, server_blocks_saved: 1, server_ms_run: 0, server_ms_saved: 0, rtt_ms: 0 };
  second.hear({ type: 'done', turn: 1, finish_reason: 'stop', stop_string: null, tokens: 2, position: 5, stats });
  await open;
  expect(second.sent).toEqual(['hello', 'open', 'frame']);
  expect(await go(next, null)).toMatchObject({ finish_reason: 'stop' });
  expect(ids).toEqual([7, 8]);
});

test('a key is offered as a subprotocol, and stands in no address', async () => {
  vi.stubGlobal('WebSocket', FakeSocket);
  for (const [apiKey, protocols] of [['secret', ['splitllm', 'splitllm.key.secret']], [undefined, []]] as const) {
    const connecting = ServerLink.connect({ server: 'https://test', apiKey }, 'test', null, () => undefined, () => () => undefined);
    expect(FakeSocket.last.url).toBe('wss://test/v1/session');
    expect(FakeSocket.last.protocols).toEqual(protocols);
    FakeSocket.last.dispatchEvent(new Event('close'));
    await expect(connecting).rejects.toMatchObject({ code: 'unreachable' });
  }
});
