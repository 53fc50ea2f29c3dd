/** How long one block takes here, for the planner. */
import type { Blocks } from './blocks';

export const PREFILL_ROWS = 64;

/** Blocks in a row that are measured together: reading the result back counts once an answer, not once a block. */
const CHAIN = 4;
const SAMPLES = 5;
/** A slow device has shown by then that it is slow. */
const BUDGET_MS = 1500;

export interface BlockTimes {
  /** One block, one row. */
  readonly decodeMs: number;
  /** One block, `PREFILL_ROWS` rows. */
  readonly prefillMs: number;
}

/** Keys and values of sessions are not touched. At least one block must be there. */
export async function measureBlocks(blocks: Blocks, hiddenSize: number): Promise<BlockTimes> {
  const scratch = await blocks.makeKv(2 * PREFILL_ROWS);
  const time = async (rows: number, position: number): Promise<number> => {
    const embedded = new Float32Array(rows * hiddenSize).fill(0.01);
    const run = async (): Promise<number> => {
      const started = performance.now();
      await blocks.rehearse(CHAIN, embedded, position, scratch);
      return (performance.now() - started) / CHAIN;
    };
    await run(); // compiles shaders
    const samples: number[] = [];
    const deadline = performance.now() + BUDGET_MS;
    do samples.push(await run());
    while (samples.length < SAMPLES && performance.now() < deadline);
    return median(samples);
  };
  try {
    const prefillMs = await time(PREFILL_ROWS, 0);
    return { prefillMs, decodeMs: await time(1, PREFILL_ROWS) };
  } finally {
    scratch.dispose();
  }
}

/** Steps of a real answer that say more than a rehearsal. */
const FEWEST_STEPS = 8;
const MOST_STEPS = 32;
/** Times differ by less than this from one run to the next for no reason at all. */
const NEWS_FACTOR = 1.5;

/** What decoding really took, beside what was measured beforehand. */
export class ObservedDecode {
  private readonly stepsMs: number[] = [];
  private toldMs: number;

  constructor(rehearsedMs: number) {
    this.toldMs = rehearsedMs;
  }

  /** One row went through `blocks` blocks in `ms`. */
  add(ms: number, blocks: number): void {
    this.stepsMs.push(ms / blocks);
    if (this.stepsMs.length > MOST_STEPS) this.stepsMs.shift();
  }

  /** A time for one block that the planner should hear of, or null while there is no news. */
  takeNews(): number | null {
    if (this.stepsMs.length < FEWEST_STEPS) return null;
    const ms = median(this.stepsMs);
    if (ms < this.toldMs * NEWS_FACTOR && this.toldMs < ms * NEWS_FACTOR) return null;
    this.stepsMs.length = 0;
    this.toldMs = ms;
    return ms;
  }
}

export function median(samples: readonly number[]): number {
  const sorted = [...samples].sort((one, other) => one - other);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}
