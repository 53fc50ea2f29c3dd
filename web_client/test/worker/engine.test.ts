import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { EngineEvent, EngineOptions } from '../../src/api';
import { BundleError, ConnectionError, RuntimeError, SessionError } from '../../src/protocol/errors';
import type { Plan } from '../../src/protocol/messages.generated';
import { Engine } from '../../src/worker/engine';
import type { GrowthHost } from '../../src/worker/growth';
import type { LocalModel } from '../../src/worker/local';

/** What the engine asked of the world, in order, and what the world shall answer. */
const world = vi.hoisted(() => ({
  log: [] as string[],
  more: [] as boolean[],
  bundle: 'a',
  /** Whether the manifest that is downloaded is the one that the server checks. */
  consistent: true,
  sizes: [] as string[],
  links: [] as { die: () => void; onClose: () => void; alive: boolean }[],
  grow: (_host: unknown): Promise<void> => Promise.resolve(),
  turn: (_link: unknown, _compute: (work: unknown) => Promise<unknown>): Promise<unknown> => Promise.resolve(null),
  openFails: null as Error | null,
  unreachable: false,
  /** Without a place in its queue, and sessions of so many tokens and more, the server refuses as full. */
  roomFor: Infinity,
}));

vi.mock('../../src/worker/ort', () => ({ deviceLost: () => new RuntimeError('device_lost', 'Gone.') }));
vi.mock('../../src/worker/model', () => ({
  loadModel: () => {
    world.log.push(`load ${world.bundle}`);
    const { bundle } = world;
    const codec = { encodeChat: () => [bundle.charCodeAt(0)], decode: (ids: readonly number[]) => String.fromCharCode(...ids) };
    return Promise.resolve({ identity: world.consistent ? bundle : 'stale', manifest: { model: { name: bundle, blocks: 8, max_context: 1024 } }, codec });
  },
}));
vi.mock('../../src/worker/growth', () => ({
  grow: (model: { identity: string }, _wanted: unknown, host: unknown) => {
    world.log.push(`grow ${model.identity}`);
    return world.grow(host);
  },
}));
vi.mock('../../src/worker/turn', () => ({
  runTurn: async (link: { session: { plan: Plan } }, request: { prompt: readonly number[] }, compute: (work: unknown) => Promise<unknown>) => {
    world.log.push(`turn ${request.prompt.join()}`);
    await world.turn(link, compute);
    return { finish_reason: 'stop', stats: { server_blocks_run: 0, server_blocks_saved: 0, server_ms_run: 0, server_ms_saved: 0 } };
  },
}));
vi.mock('../../src/worker/link', () => ({
  ServerLink: {
    connect: (_server: string, _agent: string, bundle: string, onClose: () => void) => {
      world.log.push(`hello ${bundle}`);
      if (world.unreachable) return Promise.reject(new ConnectionError('unreachable', 'No way.'));
      if (bundle !== world.bundle) return Promise.reject(new SessionError('bundle_mismatch', 'Another bundle.'));
      const link = {
        alive: true,
        sentBytes: 0,
        receivedBytes: 0,
        onClose,
        welcome: { agent: 'server', model: bundle, blocks: 8, limits: { max_context: 1024 } },
        session: { plan: null as Plan | null, state: 'idle', latestPromptRows: 0, cancel: () => null, forgetClientKv: () => world.log.push('forget'), lost: () => false, close: () => undefined },
        die: () => {
          link.alive = false;
          onClose();
        },
        openSession: ({ split, maxTokens, queue }: { split: number | 'auto'; maxTokens: number; queue: boolean }) => {
          world.log.push(`open ${split}`);
          if (!link.alive) return Promise.reject(new ConnectionError('disconnected', 'Dead.'));
          if (world.openFails !== null) return Promise.reject(world.openFails);
          world.sizes.push(`${maxTokens}${queue ? ' in line' : ''}`);
          if (!queue && maxTokens > world.roomFor) return Promise.reject(new SessionError('kv_exhausted', 'Full.'));
          link.session.plan = { split: 0, blocks: 8, max_tokens: 64, reason: '', saved: {}, predicted: {} } as unknown as Plan;
          return Promise.resolve(link.session.plan);
        },
        replan: ({ blocks_ready: ready, more_blocks: more }: { blocks_ready: number; more_blocks: boolean }) => {
          world.log.push(`replan ${ready}`);
          world.more.push(more);
          return Promise.resolve(link.session.plan);
        },
        close: () => undefined,
        send: () => undefined,
      };
      world.links.push(link);
      return Promise.resolve(link);
    },
  },
}));

const OPTIONS: EngineOptions = { server: 'http://test', split: 0, backend: 'none', variant: 'auto', wire: 'float32', effort: null };
const SAMPLING = { temperature: 0, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1, seed: null };

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));

function started(options: Partial<EngineOptions> = {}): { engine: Engine; events: EngineEvent[]; ask: (number: number) => Promise<void> } {
  const events: EngineEvent[] = [];
  const engine = new Engine({ ...OPTIONS, ...options }, (event) => events.push(event));
  engine.start();
  const ask = async (number: number): Promise<void> => {
    engine.ask({ type: 'ask', ask: number, messages: [], sampling: SAMPLING, maxTokens: 8, stop: [] });
    await settle();
  };
  return { engine, events, ask };
}

const endOf = (events: readonly EngineEvent[], ask: number): string =>
  events.flatMap((event) => (event.type === 'finished' && event.ask === ask ? event.finishReason : event.type === 'failed' && event.ask === ask ? event.code : [])).join();
const phaseOf = (events: readonly EngineEvent[]): string => events.flatMap((event) => (event.type === 'phase' ? event.phase : [])).at(-1) ?? '';

beforeEach(() => {
  // Node 20 has no navigator; a browser always has.
  vi.stubGlobal('navigator', {});
  Object.assign(world, { log: [], more: [], bundle: 'a', consistent: true, links: [], sizes: [], openFails: null, unreachable: false, roomFor: Infinity, grow: () => Promise.resolve(), turn: () => Promise.resolve() });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

test.each([
  [Infinity, ['1024']],
  [512, ['1024', '512']],
  [0, ['1024', '512', '256', '1024 in line']],
])('with room for %s tokens, a smaller session at once goes before a large one later', async (roomFor, sizes) => {
  world.roomFor = roomFor;
  const { ask } = started();
  await ask(1);
  expect(world.sizes).toEqual(sizes);
});

test('a server that came back with another bundle gets a question in terms of that bundle', async () => {
  const { events, ask } = started();
  await ask(1);
  world.links[0]?.die();
  world.bundle = 'b';
  await ask(2);
  expect(endOf(events, 2)).toBe('stop');
  expect(world.log).toEqual(['load a', 'hello a', 'open 0', 'turn 97', 'hello a', 'load b', 'hello b', 'open 0', 'turn 98']);
  expect(phaseOf(events)).toBe('ready');
});

test('also when it changes in the middle of a turn that has given nothing yet', async () => {
  const { events, ask } = started();
  world.turn = () => {
    world.turn = () => Promise.resolve(null);
    world.bundle = 'b';
    world.links[0]?.die();
    return Promise.reject(new ConnectionError('disconnected', 'Dead.'));
  };
  await ask(1);
  expect(endOf(events, 1)).toBe('stop');
  expect(world.log.at(-1)).toBe('turn 98');
});

test('a bundle that does not fit twice is told, not tried for ever', async () => {
  world.consistent = false;
  const { events, ask } = started();
  await ask(1);
  expect(endOf(events, 1)).toBe('bundle_mismatch');
  expect(world.log.filter((line) => line.startsWith('hello'))).toHaveLength(4); // two for the start, two for the question
});

test('blocks of a former bundle that arrive late are not adopted, and the new ones wait until the old are through', async () => {
  const closed: string[] = [];
  const localOf = (name: string): LocalModel =>
    ({ name, backend: 'wasm', variant: 'float32', gpu: null, blocks: { ready: 0, resize: () => false }, measured: {}, learn: () => false, close: () => Promise.resolve(closed.push(name)) }) as unknown as LocalModel;
  let finishOld = (): void => undefined;
  let late: unknown = null;
  world.grow = async (host) => {
    await new Promise<void>((resolve) => (finishOld = resolve));
    try {
      (host as GrowthHost).adopt(localOf('old'));
    } catch (error) {
      late = error;
      throw error;
    }
  };
  const { events, ask } = started({ split: 'auto', backend: 'wasm' });
  await ask(1);
  world.links[0]?.die();
  world.bundle = 'b';
  world.grow = (host) => {
    (host as GrowthHost).adopt(localOf('new'));
    return Promise.resolve();
  };
  const old = finishOld;
  await ask(2);
  expect(world.log).not.toContain('grow b');
  old();
  await settle();
  expect(late).toMatchObject({ code: 'bundle_mismatch' });
  expect(world.log).toContain('grow b');
  expect(closed).toEqual(['old']);
  expect(events.filter((event) => event.type === 'notice')).toEqual([]);
  expect(phaseOf(events)).toBe('ready');
});

test('blocks of a split asked for by number are downloaded before the connection begins to wait for `open`', async () => {
  const { ask } = started({ split: 3, backend: 'wasm' });
  await ask(1);
  expect(world.log.slice(0, 4)).toEqual(['load a', 'grow a', 'hello a', 'open 0']);
});

test('the download before the first connection is shown as one', async () => {
  world.grow = async (host) => {
    (host as GrowthHost).progress('downloading', 1, 2, 0);
    await new Promise(() => undefined);
  };
  const { events } = started({ split: 3, backend: 'wasm' });
  await settle();
  expect(phaseOf(events)).toBe('downloading');
});

test('progress of a download does not hide that there is no session', async () => {
  let progress = (_done: number): void => undefined;
  world.grow = async (host) => {
    progress = (done) => {
      (host as GrowthHost).progress('downloading', done, 9, 1);
    };
    await new Promise(() => undefined);
  };
  const { events, ask } = started({ split: 'auto', backend: 'wasm' });
  await ask(1);
  progress(1);
  expect(phaseOf(events)).toBe('downloading');
  world.links[0]?.die();
  progress(9);
  expect(phaseOf(events)).toBe('disconnected');
  world.openFails = new SessionError('server_full', 'Full.');
  await ask(2);
  progress(9);
  expect([endOf(events, 2), phaseOf(events)], 'a connection without a session is none').toEqual(['server_full', 'disconnected']);
  world.openFails = null;
  await ask(3);
  expect([endOf(events, 3), phaseOf(events)]).toEqual(['stop', 'downloading']);
});

test('a rung that comes in the place of one that a plan counts on begins without its keys, and is not blamed for blocks that are not here yet', async () => {
  const closed: string[] = [];
  const former = failing('webgpu', new Error('not run'), closed).local;
  const next = Object.assign(failing('wasm', new Error('not run'), closed).local, { blocks: { ready: 0, resize: () => false } });
  let fall = (): void => undefined;
  world.grow = async (to) => {
    const host = to as GrowthHost;
    host.adopt(former);
    await new Promise<void>((resolve) => (fall = resolve));
    host.abandon(new RuntimeError('out_of_memory', 'Full.'));
    host.adopt(next);
    await new Promise(() => undefined);
  };
  world.turn = async (link, compute) => {
    (link as { session: { plan: { split: number } } }).session.plan.split = 1;
    world.turn = () => Promise.resolve(null);
    fall();
    await settle();
    await compute(work);
  };
  const { engine, events, ask } = started({ split: 'auto', backend: 'auto' });
  await settle();
  world.log.length = 0;
  void ask(1);
  await vi.waitFor(() => {
    expect(endOf(events, 1)).not.toBe('');
  });
  await settle();
  expect([endOf(events, 1), closed]).toEqual(['stop', ['webgpu']]);
  expect(world.log).toEqual(['turn 97', 'forget', 'replan 1', 'turn 97', 'replan 1']);
  expect(events.flatMap((event) => (event.type === 'notice' ? event.code : []))).toEqual(['out_of_memory']);
  engine.close();
});

test('blocks that are here when a download ends in an error are told of', async () => {
  const local = failing('wasm', new Error('not run'), []).local;
  world.grow = (host) => {
    (host as GrowthHost).adopt(local);
    return Promise.reject(new BundleError('bundle_damaged', 'Damaged.'));
  };
  const { events } = started({ split: 'auto', backend: 'wasm' });
  await settle();
  expect(events.flatMap((event) => (event.type === 'notice' ? event.code : []))).toEqual(['bundle_damaged']);
  expect(world.log.at(-1)).toBe('replan 1');
});

test('a stopped answer whose connection is lost ends at once, without a new connection', async () => {
  const { engine, events, ask } = started();
  world.turn = () => {
    engine.stop(1);
    world.links[0]?.die();
    return Promise.reject(new ConnectionError('silent', 'Dead.'));
  };
  await ask(1);
  expect(endOf(events, 1)).toBe('cancelled');
  expect(world.links).toHaveLength(1);
  world.turn = () => Promise.resolve(null);
  await ask(2);
  expect(endOf(events, 2)).toBe('stop');
});

describe('an answer whose connection is lost', () => {
  /** Under way, and cut off; `onLine` is what the browser says of its network. */
  async function cutOff(onLine: boolean): Promise<{ engine: Engine; end: () => string; pass: (minutes: number) => Promise<unknown> }> {
    const { engine, events } = started();
    await settle();
    vi.useFakeTimers();
    world.turn = () => {
      world.turn = () => Promise.resolve(null);
      vi.stubGlobal('navigator', { onLine });
      world.unreachable = true;
      world.links[0]?.die();
      return Promise.reject(new ConnectionError('silent', 'Dead.'));
    };
    engine.ask({ type: 'ask', ask: 1, messages: [], sampling: SAMPLING, maxTokens: 8, stop: [] });
    const pass = (minutes: number): Promise<unknown> => vi.advanceTimersByTimeAsync(minutes * 60_000);
    return { engine, end: () => endOf(events, 1), pass };
  }

  test('fails where the network is there and the server is not', async () => {
    const { end, pass } = await cutOff(true);
    await pass(1);
    expect(end()).toBe('unreachable');
  });

  test('waits for the network where there is none, and goes on', async () => {
    const { end, pass } = await cutOff(false);
    await pass(60);
    expect(end()).toBe('');
    vi.stubGlobal('navigator', { onLine: true });
    world.unreachable = false;
    await pass(0.1);
    expect(end()).toBe('stop');
  });

  test('is not waited for by who stops it', async () => {
    const { engine, end, pass } = await cutOff(false);
    await pass(1);
    engine.stop(1);
    await pass(0.1);
    expect(end()).toBe('cancelled');
  });
});

/** Blocks on a backend whose device goes when `lose` is called, and that fail with `error` when they are run. */
function failing(backend: 'webgpu' | 'wasm', error: Error, closed: string[]): { local: LocalModel; lose: () => void } {
  let lose = (): void => undefined;
  const gpu = backend === 'wasm' ? null : { vendor: '', architecture: '', device: { lost: new Promise<void>((resolve) => (lose = resolve)) } };
  const run = async (): Promise<never> => {
    lose();
    await settle(); // the news of the loss comes before the call has failed
    throw error;
  };
  const local = { backend, variant: 'float32', gpu, blocks: { ready: 1, resize: () => false }, measured: { blocks_ready: 1 }, learn: () => false, run, close: () => Promise.resolve(closed.push(backend)) };
  return { local: local as unknown as LocalModel, lose };
}

const work = { split: 1, ids: [1], span: { start: 0 } };

test('blocks that fail in an answer take nothing with them that has come in their place', async () => {
  const closed: string[] = [];
  const locals = [failing('webgpu', new RuntimeError('run_failed', 'Broken.'), closed).local, failing('wasm', new Error('not run'), closed).local];
  world.grow = (host) => {
    const local = locals.shift();
    if (local !== undefined) (host as GrowthHost).adopt(local);
    return Promise.resolve();
  };
  world.turn = (_link, compute) => {
    world.turn = () => Promise.resolve(null);
    return compute(work);
  };
  const { events, ask } = started({ split: 'auto', backend: 'auto' });
  await settle();
  void ask(1);
  await vi.waitFor(() => {
    expect(endOf(events, 1)).not.toBe('');
  });
  expect([endOf(events, 1), closed]).toEqual(['stop', ['webgpu']]);
  expect(events.flatMap((event) => (event.type === 'notice' ? event.code : []))).toEqual(['device_lost']);
});

test('an answer steps down as often as there is something to step down from', async () => {
  const closed: string[] = [];
  const error = new RuntimeError('run_failed', 'Broken.');
  const locals = [failing('wasm', error, closed).local, failing('wasm', error, closed).local];
  world.grow = (host) => {
    const local = locals.shift();
    if (local !== undefined) (host as GrowthHost).adopt(local);
    return Promise.resolve();
  };
  let turns = 0;
  world.turn = async (_link, compute) => {
    turns += 1;
    await settle();
    if (turns < 3) await compute(work);
  };
  const { events, ask } = started({ split: 'auto', backend: 'wasm' });
  await settle();
  void ask(1);
  await vi.waitFor(() => {
    expect(endOf(events, 1)).not.toBe('');
  });
  expect([endOf(events, 1), turns, closed]).toEqual(['stop', 3, ['wasm', 'wasm']]);
});

test('while blocks are on their way a report says so, and when none is any more, that', async () => {
  const { local } = failing('wasm', new Error('not run'), []);
  world.grow = async (host) => {
    (host as GrowthHost).adopt(local);
    await (host as GrowthHost).arrived(local);
    throw new RuntimeError('run_failed', 'The second block is broken.');
  };
  started({ split: 'auto', backend: 'auto' });
  await settle();
  expect(world.more).toEqual([true, false]);
});
