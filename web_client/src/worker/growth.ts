/** Blocks arrive one after the other, in the background of a chat that already works. */
import type { Backend, Phase, Variant } from '../api';
import { RuntimeError } from '../protocol/errors';
import { LocalModel } from './local';
import { blocksThatFit, memoryBytes } from './memory';
import type { Model } from './model';

export interface Wanted {
  /** Backends in the order in which they are tried. */
  readonly backends: readonly Exclude<Backend, 'none'>[];
  readonly variant: Variant | 'auto';
  /** How many blocks, or null for as many as the planner can use and the memory holds. */
  readonly blocks: number | null;
}

export interface GrowthHost {
  progress(phase: Phase, doneBytes: number, totalBytes: number, blocksReady: number): void;
  /** A backend is there; blocks will be added to it. */
  adopt(local: LocalModel): void;
  /** It cannot be used, after all. */
  abandon(error: RuntimeError): void;
  /** More blocks are ready. Returns whether the planner could use still more. */
  arrived(local: LocalModel): Promise<boolean>;
}

/** A new plan costs a round trip between turns, so not every block asks for one. */
const PLANS_ON_THE_WAY = 4;

export async function grow(model: Model, wanted: Wanted, host: GrowthHost): Promise<void> {
  for (const backend of wanted.backends) {
    try {
      await growOn(backend, model, wanted, host);
      return;
    } catch (error) {
      if (!(error instanceof RuntimeError)) throw error;
      host.abandon(error);
    }
  }
}

async function growOn(backend: Exclude<Backend, 'none'>, model: Model, wanted: Wanted, host: GrowthHost): Promise<void> {
  const local = await LocalModel.start(model, backend, wanted.variant);
  host.adopt(local);
  const target = Math.min(wanted.blocks ?? blocksThatFit(local.sizes, memoryBytes()), local.sizes.length);
  const total = local.sizes.slice(0, target).reduce((sum, size) => sum + size, 0);
  const step = Math.max(1, Math.ceil(target / PLANS_ON_THE_WAY));
  let done = 0;
  const progress = (phase: Phase): void => {
    host.progress(phase, done, total, local.blocks.ready);
  };

  for (let planned = 0; planned < target; ) {
    progress('downloading');
    if (local.blocks.ready === 0) await local.prefetchEmbedding();
    const files = await local.fetchNext((bytes) => {
      done += bytes;
      progress('downloading');
    });
    progress('compiling');
    await local.compileNext(files);
    if (local.blocks.ready === 1) {
      progress('measuring');
      // Answers go on meanwhile: no plan counts on these blocks yet, so they run on the server.
      await local.measure();
    }
    const { ready } = local.blocks;
    if (ready < target && ready - planned < step) continue;
    planned = ready;
    // What the planner would not use is not downloaded.
    if (!(await host.arrived(local))) break;
  }
}
