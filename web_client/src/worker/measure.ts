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

export function median(samples: readonly number[]): number {
  const sorted = [...samples].sort((one, other) => one - other);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}
