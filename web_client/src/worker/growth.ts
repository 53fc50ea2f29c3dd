/** Blocks arrive one after the other, in the background of a chat that already works. */
import type { EngineOptions, Phase } from '../api';
import { RuntimeError } from '../protocol/errors';
import type { Downloads } from './downloads';
import { LocalModel } from './local';
import { blocksThatFit, memoryBytes } from './memory';
import type { Model } from './model';
import { ruledOut, rungsOf } from './rungs';
import type { Failure, Rung } from './rungs';

export interface Wanted {
  readonly backend: EngineOptions['backend'];
  readonly variant: EngineOptions['variant'];
  /** What failed here before; what fails now is added. */
  readonly failures: Failure[];
  /** How many blocks, or null for as many as the planner can use and the memory holds. */
  readonly blocks: number | null;
  /** Whether it may wait: for a pause to end, or for a network to come back. */
  readonly patient: boolean;
  readonly downloads: Downloads;
}

export interface GrowthHost {
  progress(phase: Phase, doneBytes: number, totalBytes: number, blocksReady: number): void;
  /** So many bytes are not kept here and are about to be downloaded. */
  announce(bytes: number): Promise<void>;
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
  const { failures } = wanted;
  for (const rung of rungsOf(model.manifest, wanted.backend, wanted.variant)) {
    if (ruledOut(rung, failures)) continue;
    try {
      await growOn(rung, model, wanted, host);
      return;
    } catch (error) {
      if (!(error instanceof RuntimeError)) throw error;
      failures.push({ ...rung, code: error.code });
      host.abandon(error);
    }
  }
}

async function growOn(rung: Rung, model: Model, wanted: Wanted, host: GrowthHost): Promise<void> {
  const { downloads } = wanted;
  let done = 0;
  let total = 0;
  let ready = 0;
  /** How many of them a plan was asked for. */
  let planned = 0;
  const progress = (phase: Phase): void => {
    host.progress(phase, done, total, ready);
  };
  const paused = (): void => {
    progress('paused');
    if (ready === planned) return;
    planned = ready;
    void host.arrived(local); // it may be long until the next one arrives
  };
  const load = <T>(call: (signal: AbortSignal) => Promise<T>): Promise<T> => (wanted.patient ? downloads.patiently(call, paused) : call(downloads.signal));

  const local = await load((signal) => LocalModel.start(model, rung, signal));
  host.adopt(local);
  const target = Math.min(wanted.blocks ?? blocksThatFit(local.sizes, memoryBytes()), local.sizes.length);
  total = local.sizes.slice(0, target).reduce((sum, size) => sum + size, 0);
  await host.announce(await local.missingBytes(target));
  const step = Math.max(1, Math.ceil(target / PLANS_ON_THE_WAY));

  while (planned < target) {
    const before = done;
    const files = await load(async (signal) => {
      done = before;
      progress('downloading');
      if (ready === 0) await local.prefetchEmbedding(signal);
      return local.fetchNext((bytes) => {
        done += bytes;
        progress('downloading');
      }, signal);
    });
    progress('compiling');
    await local.compileNext(files);
    ready = local.blocks.ready;
    if (ready === 1) {
      progress('measuring');
      // Answers go on meanwhile: no plan counts on these blocks yet, so they run on the server.
      await local.measure();
    }
    if (ready < target && ready - planned < step) continue;
    planned = ready;
    // What the planner would not use is not downloaded.
    if (!(await host.arrived(local))) break;
  }
}
