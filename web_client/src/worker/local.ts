/** The part of the model that runs here: a backend, the blocks loaded on it, and the embedding. */
import type { Backend, Variant } from '../api';
import { EmbeddingTable } from '../bundle/embedding';
import type { Received } from '../bundle/fetching';
import { activationsOf, blockBytes, blockParts } from '../bundle/parts';
import type { Activations, BlockParts, TensorPlace } from '../bundle/parts';
import { BundleError, RuntimeError } from '../protocol/errors';
import type { Report } from '../protocol/messages.generated';
import type { Hidden } from '../session/hidden';
import { Blocks } from './blocks';
import { openGpu } from './gpu';
import type { Gpu } from './gpu';
import { withInitializers } from './initializers';
import type { Initializer } from './initializers';
import { measureBlocks, ObservedDecode, PREFILL_ROWS } from './measure';
import type { BlockTimes } from './measure';
import { memoryBytes } from './memory';
import type { Model } from './model';
import { Runtime } from './ort';
import type { Graph, Tensor } from './ort';
import type { Rung } from './rungs';

/** What is loaded of a block before it is compiled. */
export interface BlockFiles {
  readonly parts: BlockParts;
  readonly graph: Graph;
}

const MOST_WASM_THREADS = 4;
/** Rotary tables of a very long context, once for each block, would fill the memory of wasm: up to so many bytes a block. */
const MOST_OWN_BYTES = 4 * 2 ** 20;

export class LocalModel {
  /** Rotary tables and the like, by file and offset: uploaded once, shared by all blocks. */
  private readonly constants = new Map<string, Tensor>();
  private readonly constantFiles = new Map<string, Uint8Array<ArrayBuffer>>();
  private times: BlockTimes | null = null;
  private observed: ObservedDecode | null = null;

  private constructor(
    private readonly model: Model,
    readonly blocks: Blocks,
    readonly variant: Variant,
    private readonly embedding: EmbeddingTable,
  ) {}

  /** `signal` ends downloads. Throws a `RuntimeError` when this rung is not to be had here. */
  static async start(model: Model, { backend, variant }: Rung, signal: AbortSignal): Promise<LocalModel> {
    const embedding = await EmbeddingTable.open(model.files, model.manifest, signal);
    const gpu = backend === 'webgpu' ? await openGpu() : null;
    const activations = activationsOf(model.manifest, variant);
    if (activations === 'float16' && gpu?.shaderF16 !== true) {
      gpu?.device.destroy();
      throw new RuntimeError('float16_unavailable', 'The graphics here cannot compute in float16; the blocks run in float32.');
    }
    const { hidden_size: hidden, kv_heads: kvHeads, head_dim: headDim } = model.manifest.model;
    const blocks = new Blocks(new Runtime(gpu, wasmThreads(backend)), { hidden, kvHeads, headDim, activations });
    return new LocalModel(model, blocks, variant, embedding);
  }

  get backend(): Exclude<Backend, 'none'> {
    return this.blocks.runtime.backend;
  }

  get gpu(): Gpu | null {
    return this.blocks.runtime.gpu;
  }

  /** Bytes of each block to download. */
  get sizes(): readonly number[] {
    return blockBytes(this.model.manifest, this.variant);
  }

  /** What a report says of this model here; the rest is the person's word. */
  get measured(): Omit<Report, 'effort'> {
    return {
      backend: this.backend,
      variant: this.variant,
      blocks_ready: this.blocks.ready,
      decode_ms: this.times?.decodeMs ?? null,
      prefill_ms: this.times?.prefillMs ?? null,
      prefill_rows: PREFILL_ROWS,
      memory_bytes: memoryBytes(),
    };
  }

  /** Bytes of the first `blocks` blocks that are not kept here. */
  async missingBytes(blocks: number): Promise<number> {
    const names = Array.from({ length: blocks }, (_, index) => blockParts(this.model.manifest, index, this.variant));
    return this.model.files.missingBytes(names.flatMap(({ graph, weights }) => (weights === null ? [graph] : [graph, weights])));
  }

  /** Download the next block; every byte is verified before this returns. */
  async fetchNext(received: Received, signal: AbortSignal): Promise<BlockFiles> {
    const parts = blockParts(this.model.manifest, this.blocks.ready, this.variant);
    const { files } = this.model;
    const weights = parts.weights === null ? [] : [{ path: parts.weights, data: await files.read(parts.weights, received, signal) }];
    return { parts, graph: { graph: await files.read(parts.graph, received, signal), files: weights } };
  }

  async compileNext({ parts, graph }: BlockFiles): Promise<void> {
    const feeds: Record<string, Tensor> = {};
    const bytes = [...parts.constants.values()].reduce((sum, place) => sum + bytesOf(place, parts.activations), 0);
    if (this.gpu === null && bytes <= MOST_OWN_BYTES) {
      await this.blocks.add(await this.withConstants(parts, graph), feeds);
      return;
    }
    for (const [input, place] of parts.constants) feeds[input] = await this.constant(place, parts.activations);
    await this.blocks.add(graph, feeds);
  }

  /** Fetch the embedding's rows beforehand, where the table is small. */
  async prefetchEmbedding(signal: AbortSignal): Promise<void> {
    await this.embedding.prefetch(signal);
  }

  async measure(): Promise<void> {
    this.times = await measureBlocks(this.blocks, this.model.manifest.model.hidden_size);
    this.observed = new ObservedDecode(this.times.decodeMs);
  }

  /** Take over what answers have shown. Returns whether the planner should hear of it. */
  learn(): boolean {
    const decodeMs = this.observed?.takeNews() ?? null;
    if (decodeMs === null || this.times === null) return false;
    this.times = { ...this.times, decodeMs };
    return true;
  }

  /** Embedding and blocks `[0, split)` on ids that begin at `position`. */
  async run(split: number, ids: readonly number[], position: number): Promise<Hidden> {
    const embedded = await this.embedding.rows(ids);
    const started = performance.now();
    const hidden = await this.blocks.run(split, embedded, position);
    if (ids.length === 1) this.observed?.add(performance.now() - started, split);
    return hidden;
  }

  async close(): Promise<void> {
    await this.blocks.close();
    for (const tensor of this.constants.values()) tensor.dispose();
    this.gpu?.device.destroy();
  }

  /** On the processor what is fed is copied with every run, so each block has its own instead. */
  private async withConstants({ constants, activations }: BlockParts, { graph, files }: Graph): Promise<Graph> {
    const initializers: Initializer[] = [];
    const data = new Map(files.map((file) => [file.path, file.data]));
    for (const [input, place] of constants) {
      data.set(place.file, await this.constantFile(place, activations));
      initializers.push({ input, type: activations, dims: place.shape, file: place.file, offset: place.offset, bytes: bytesOf(place, activations) });
    }
    return { graph: withInitializers(graph, initializers), files: [...data].map(([path, bytes]) => ({ path, data: bytes })) };
  }

  private async constant(place: TensorPlace, type: Activations): Promise<Tensor> {
    const key = `${place.file}@${place.offset}:${type}`;
    let tensor = this.constants.get(key);
    if (tensor === undefined) {
      const { buffer } = await this.constantFile(place, type);
      const elements = elementsOf(place);
      const values = type === 'float32' ? new Float32Array(buffer, place.offset, elements) : new Uint16Array(buffer, place.offset, elements);
      tensor = this.blocks.runtime.resident(type, values, place.shape);
      this.constants.set(key, tensor);
    }
    return tensor;
  }

  /** The file that a constant lies in, which is long enough for it. */
  private async constantFile(place: TensorPlace, type: Activations): Promise<Uint8Array<ArrayBuffer>> {
    const file = this.constantFiles.get(place.file) ?? (await this.model.files.read(place.file));
    this.constantFiles.set(place.file, file);
    if (place.offset % 4 !== 0 || place.offset + bytesOf(place, type) > file.byteLength) {
      throw new BundleError('bundle_damaged', `${place.file} is too short for what the manifest says it holds; the operator must export the bundle again.`);
    }
    return file;
  }
}

const elementsOf = ({ shape }: TensorPlace): number => shape.reduce((product, dim) => product * dim, 1);

const bytesOf = (place: TensorPlace, type: Activations): number => elementsOf(place) * (type === 'float32' ? 4 : 2);

/** Threads need shared memory, which a browser gives only to pages that are isolated from other origins. */
function wasmThreads(backend: 'webgpu' | 'wasm'): number {
  return backend === 'wasm' && self.crossOriginIsolated ? Math.min(MOST_WASM_THREADS, navigator.hardwareConcurrency) : 1;
}
