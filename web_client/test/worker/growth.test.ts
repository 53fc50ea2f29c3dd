import { expect, test, vi } from 'vitest';
import { BundleError } from '../../src/protocol/errors';
import { Downloads } from '../../src/worker/downloads';
import { grow } from '../../src/worker/growth';
import type { GrowthHost, Wanted } from '../../src/worker/growth';
import type { LocalModel } from '../../src/worker/local';
import type { Model } from '../../src/worker/model';

const BLOCKS = 8;

/** A browser that gets block after block, and what the download of the next one does. */
const world = vi.hoisted(() => ({ fetchNext: (_ready: number, _signal: AbortSignal): Promise<unknown> => Promise.resolve({}) }));

vi.mock('../../src/worker/rungs', () => ({ rungsOf: () => [{ backend: 'wasm', variant: 'float32' }], ruledOut: () => false }));
vi.mock('../../src/worker/local', () => ({
  LocalModel: {
    start: () => {
      const blocks = { ready: 0 };
      return Promise.resolve({
        blocks,
        sizes: Array.from({ length: BLOCKS }, () => 1),
        missingBytes: () => Promise.resolve(0),
        prefetchEmbedding: () => Promise.resolve(),
        fetchNext: (_received: unknown, signal: AbortSignal) => world.fetchNext(blocks.ready, signal),
        compileNext: () => Promise.resolve((blocks.ready += 1)),
        measure: () => Promise.resolve(),
      });
    },
  },
}));

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
