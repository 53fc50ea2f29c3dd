/** The blocks that run here, one runtime session each, chained on the device. */
import type { Activations } from '../bundle/parts';
import { RuntimeError } from '../protocol/errors';
import { toFloat16 } from '../protocol/float16';
import type { Hidden } from '../session/hidden';
import { GrowingKv, StaticKv } from './kv';
import type { KvCache, KvShape } from './kv';
import type { Feeds, Graph, Runtime, Session, Tensor } from './ort';

export interface BlockShape {
  readonly hidden: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly activations: Activations;
}

/** A block that is ready to run; tensors that all blocks share (rotary tables) are uploaded once by the caller. */
interface Block {
  readonly session: Session;
  readonly constants: Feeds;
  kv: KvCache | null;
  runs: number;
}

export class Blocks {
  private readonly blocks: Block[] = [];
  private capacity = 0;

  constructor(
    readonly runtime: Runtime,
    private readonly shape: BlockShape,
  ) {}

  /** Blocks `[0, ready)` can run. */
  get ready(): number {
    return this.blocks.length;
  }

  get runs(): number[] {
    return this.blocks.map((block) => block.runs);
  }

  /** Where the keys of each block are that has computed some; read back, not believed. */
  async kvLocations(): Promise<string[]> {
    const locations = await Promise.all(this.blocks.flatMap((block) => block.kv?.location() ?? []));
    return locations.filter((location) => location !== null);
  }

  /** Compile the next block. */
  async add(graph: Graph, constants: Feeds): Promise<void> {
    this.blocks.push({ session: await this.runtime.compile(graph), constants, kv: null, runs: 0 });
  }

  /** Make room for sessions of `capacity` positions. Returns whether keys and values were lost by it. */
  resize(capacity: number): boolean {
    if (capacity === this.capacity) return false;
    this.capacity = capacity;
    for (const block of this.blocks) {
      block.kv?.dispose();
      block.kv = null;
    }
    return true;
  }

  /** Blocks `[0, split)` on rows that begin at `position`: float32[rows, hidden] in, hidden states out. */
  async run(split: number, embedded: Float32Array, position: number): Promise<Hidden> {
    const chain = this.blocks.slice(0, split);
    if (chain.length < split) throw new RuntimeError('run_failed', `Only ${chain.length} of ${split} blocks are here; wait until they have arrived.`);
    const caches: KvCache[] = [];
    for (const block of chain) caches.push((block.kv ??= await this.makeKv(this.capacity)));
    const output = await this.runChain(chain, caches, embedded, position);
    for (const block of chain) block.runs += 1;
    return output;
  }

  /** The same work on keys and values that are thrown away, to measure it: `length` steps of block 0, 1, … and round again. */
  async rehearse(length: number, embedded: Float32Array, position: number, scratch: KvCache): Promise<void> {
    const chain = Array.from({ length }, (_, index) => this.blocks[index % this.blocks.length]).filter((block) => block !== undefined);
    await this.runChain(chain, chain.map(() => scratch), embedded, position);
  }

  async makeKv(capacity: number): Promise<KvCache> {
    const shape: KvShape = { heads: this.shape.kvHeads, headDim: this.shape.headDim, type: this.shape.activations };
    return this.runtime.gpu === null ? new GrowingKv(this.runtime, shape) : StaticKv.make(this.runtime, shape, capacity);
  }

  private async runChain(chain: readonly Block[], caches: readonly KvCache[], embedded: Float32Array, position: number): Promise<Hidden> {
    const { hidden: columns, activations } = this.shape;
    const rows = embedded.length / columns;
    const end = position + rows;
    const lengths = { seqlens_k: this.runtime.integers([end - 1], [1]), total_sequence_length: this.runtime.integers([end], []) };
    let hidden = this.runtime.floats(activations, activations === 'float32' ? embedded : toFloat16(embedded), [1, rows, columns]);
    for (const [index, block] of chain.entries()) {
      const kv = caches[index];
      if (kv === undefined) continue;
      const feeds = { hidden_states: hidden, ...lengths, ...kv.feeds(position), ...block.constants };
      const outputs = await this.runtime.run(block.session, feeds, { hidden_states_out: null, ...kv.fetches() });
      kv.keep(outputs);
      hidden.dispose(); // else a buffer of the device leaks with every block and step
      hidden = outputOf(outputs);
    }
    const values = await this.runtime.download(hidden);
    return values instanceof Float32Array ? { dtype: 'float32', values } : { dtype: 'float16', values };
  }

  async close(): Promise<void> {
    this.resize(0);
    for (const block of this.blocks.splice(0)) await this.runtime.release(block.session);
  }
}

function outputOf(outputs: Readonly<Record<string, Tensor>>): Tensor {
  const output = outputs.hidden_states_out;
  if (output === undefined) throw new RuntimeError('run_failed', 'A block has no output `hidden_states_out`; the operator must export the bundle again.');
  return output;
}
