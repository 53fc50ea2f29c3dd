import { expect, test, vi } from 'vitest';
import { BundleError } from '../../src/protocol/errors';
import type { Plan } from '../../src/protocol/messages.generated';
import { Downloads } from '../../src/worker/downloads';
import { grow } from '../../src/worker/growth';
import type { GrowthHost, Wanted } from '../../src/worker/growth';
import type { LocalModel } from '../../src/worker/local';
import { Announcer } from '../../src/worker/announcer';
import { Ladder } from '../../src/worker/ladder';
import type { Model } from '../../src/worker/model';
import { OPTIONS } from '../client/fake_port';

const BLOCKS = 8;

/** A browser that gets block after block: what is to be downloaded, what the download of the next one does, and how many it holds. */
const world = vi.hoisted(() => ({ missing: 0, fits: 8, fetchNext: (_ready: number, _signal: AbortSignal): Promise<unknown> => Promise.resolve({}) }));

vi.mock('../../src/worker/rungs', () => ({ rungsOf: () => [{ backend: 'wasm', variant: 'float32' }], ruledOut: () => false }));
vi.mock('../../src/worker/local', () => ({
  LocalModel: {
    start: () => {
      const blocks = { ready: 0, resize: () => false };
      return Promise.resolve({
        blocks,
        gpu: null,
        measured: {},
        sizes: Array.from({ length: BLOCKS }, () => 1),
        missingBytes: () => Promise.resolve(world.missing),
        prefetchEmbedding: () => Promise.resolve(),
        fetchNext: (_received: unknown, signal: AbortSignal) => world.fetchNext(blocks.ready, signal),
        compileNext: () => Promise.resolve((blocks.ready += 1)),
        measure: () => Promise.resolve(),
      });
    },
  },
}));

vi.mock('../../src/worker/memory', () => ({ memoryBytes: () => null, blocksThatFit: () => world.fits }));

/** A growth, and after how many blocks each plan was asked for. */
function growing(downloads: Downloads): { grown: Promise<void>; plans: number[]; phases: string[] } {
  const plans: number[] = [];
  const phases: string[] = [];
  const host: GrowthHost = {
    progress: (phase) => phases.push(phase),
    announce: () => Promise.resolve(),
    adopt: () => undefined,
    abandon: () => undefined,
    arrived: (local: LocalModel) => Promise.resolve(plans.push(local.blocks.ready) > 0),
  };
  const wanted: Wanted = { backend: 'wasm', variant: 'float32', failures: [], blocks: BLOCKS, patient: true, downloads };
  return { grown: grow({ manifest: {} } as Model, wanted, host), plans, phases };
}

test('a plan is asked for four times on the way, and for what a pause leaves here', async () => {
  const downloads = new Downloads(true);
  world.fetchNext = (ready, signal) => {
    if (ready === 3) downloads.pause();
    signal.throwIfAborted();
    return Promise.resolve({});
  };
  const { grown, plans, phases } = growing(downloads);
  await vi.waitFor(() => {
    expect(phases.at(-1)).toBe('paused');
  });
  expect(plans).toEqual([2, 3]);
  world.fetchNext = () => Promise.resolve({});
  downloads.resume();
  await grown;
  expect(plans).toEqual([2, 3, 5, 7, 8]);
});

test('what ends a growth for good is thrown', async () => {
  world.fetchNext = () => Promise.reject(new BundleError('bundle_damaged', 'Damaged.'));
  await expect(growing(new Downloads(true)).grown).rejects.toMatchObject({ code: 'bundle_damaged' });
});

/** The ladder of an engine that asks before large downloads; what each report said of blocks on their way, and what was told. */
function laddered(): { ladder: Ladder; reports: (boolean | undefined)[]; told: string[] } {
  vi.stubGlobal('navigator', {});
  const reports: (boolean | undefined)[] = [];
  const told: string[] = [];
  const tell = new Announcer((event) => told.push(event.type === 'notice' ? event.code : event.type));
  const ladder: Ladder = new Ladder(
    { identity: 'x', manifest: { model: { blocks: BLOCKS } } } as Model,
    OPTIONS,
    {
      tell,
      get plan() {
        return { split: ladder.local?.blocks.ready, max_tokens: 64 } as Plan;
      },
      forgetKv: () => undefined,
      replan: () => {
        reports.push(ladder.measured.more_blocks);
        return Promise.resolve();
      },
      progress: (phase) => told.push(phase),
      settled: () => told.push('settled'),
    },
    Promise.resolve(),
    'ask',
  );
  return { ladder, reports, told };
}

test('a large download waits for a yes, and no other choice is one; the planner hears that nothing is on its way', async () => {
  world.missing = 200e6;
  world.fetchNext = (_ready, signal) => {
    signal.throwIfAborted();
    return Promise.resolve({});
  };
  const { ladder, reports, told } = laddered();
  ladder.begin();
  await vi.waitFor(() => {
    expect(told).toContain('paused');
  });
  ladder.allowDownloads('ask'); // with another word on what is kept
  ladder.allowDownloads(false);
  ladder.allowDownloads('ask');
  await new Promise((resolve) => setTimeout(resolve));
  expect([ladder.local?.blocks.ready, reports]).toEqual([0, [false]]);
  ladder.allowDownloads(true);
  await vi.waitFor(() => {
    expect(told).toContain('settled');
  });
  expect([ladder.local?.blocks.ready, reports[1]]).toEqual([8, true]);
});

test('the planner hears that no more blocks come where the memory holds no more', async () => {
  world.missing = 0;
  world.fits = 3;
  const { ladder, reports, told } = laddered();
  ladder.begin();
  await vi.waitFor(() => {
    expect(told).toContain('settled');
  });
  expect([ladder.local?.blocks.ready, reports.at(-1)]).toEqual([3, false]);
});
