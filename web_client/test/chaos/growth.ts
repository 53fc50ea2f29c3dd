/** In place of worker/growth: blocks that are arithmetic, and there at once. What they give is what the server's fake engine reads. */
import type { GrowthHost, Wanted } from '../../src/worker/growth';
import type { LocalModel } from '../../src/worker/local';
import type { Model } from '../../src/worker/model';

export async function grow({ manifest }: Model, wanted: Wanted, host: GrowthHost): Promise<void> {
  const { blocks, hidden_size: columns, max_context: most } = manifest.model;
  const memory = new Float32Array(most);
  const local = {
    backend: 'wasm',
    variant: 'float32',
    gpu: null,
    blocks: { ready: wanted.blocks ?? blocks, resize: () => false },
    measured: { backend: 'wasm', variant: 'float32', blocks_ready: wanted.blocks ?? blocks, decode_ms: 1, prefill_ms: 4, prefill_rows: 64, memory_bytes: null },
    learn: () => false,
    close: () => Promise.resolve(),
    /** The head alone remembers nothing, so with all blocks here the sum is made here. */
    run: (split: number, ids: readonly number[], start: number) => {
      memory.set(ids, start);
      const values = new Float32Array(ids.length * columns);
      let sum = memory.subarray(0, start).reduce((total, id) => total + id, 0);
      ids.forEach((id, row) => {
        sum += id;
        values[row * columns] = split === blocks ? sum : id;
      });
      return Promise.resolve({ dtype: 'float32', values });
    },
  };
  host.adopt(local as unknown as LocalModel);
  await host.arrived(local as unknown as LocalModel);
}
