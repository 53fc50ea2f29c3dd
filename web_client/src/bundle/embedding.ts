/**
 * The embedding table, read by rows. It may be gigabytes, so it is fetched in chunks as ids ask for them, and each chunk is
 * verified by its own hash. The float32 table serves every variant; blocks in float16 take it rounded.
 */
import { BundleError } from '../protocol/errors';
import type { BundleFiles } from './files';
import type { Manifest } from './manifest.generated';
import { toHex } from './digest';

const HASH_BYTES = 32;
/** A table up to this size is fetched whole beforehand, so that no answer waits for a chunk. */
const PREFETCH_BYTES = 8 * 2 ** 20;

export interface ChunkPlace {
  readonly start: number;
  readonly size: number;
}

export class EmbeddingTable {
  private readonly chunks = new Map<number, Promise<Float32Array>>();

  private constructor(
    private readonly files: BundleFiles,
    private readonly table: Manifest['embed']['float32'],
    private readonly hashes: Uint8Array,
    private readonly columns: number,
    private readonly vocabulary: number,
  ) {}

  static async open(files: BundleFiles, manifest: Manifest, signal?: AbortSignal): Promise<EmbeddingTable> {
    const table = manifest.embed.float32;
    const { hidden_size: columns, vocab_size: vocabulary } = manifest.model;
    const hashes = await files.read(table.hashes, undefined, signal);
    const chunks = Math.ceil(vocabulary / table.rows_per_chunk);
    if (table.row_bytes !== columns * 4 || files.entry(table.file).size !== vocabulary * table.row_bytes || hashes.length !== chunks * HASH_BYTES) {
      throw new BundleError('bundle_damaged', 'The sizes of the embedding table contradict each other; the operator must export the bundle again.');
    }
    const embedding = new EmbeddingTable(files, table, hashes, columns, vocabulary);
    files.addRanges(embedding.chunkHashes);
    return embedding;
  }

  /** Of every chunk, in order. */
  private get chunkHashes(): string[] {
    return Array.from({ length: this.hashes.length / HASH_BYTES }, (_, index) => this.hashOf(index));
  }

  /** Hidden states of `ids`, row-major. */
  async rows(ids: readonly number[]): Promise<Float32Array> {
    const out = new Float32Array(ids.length * this.columns);
    const chunks = new Map([...new Set(ids.map((id) => this.chunkOf(id)))].map((index) => [index, this.chunk(index)]));
    for (const [row, id] of ids.entries()) {
      const values = await chunks.get(this.chunkOf(id));
      const first = (id % this.table.rows_per_chunk) * this.columns;
      if (values !== undefined) out.set(values.subarray(first, first + this.columns), row * this.columns);
    }
    return out;
  }

  /** Fetch a small table whole, unless `signal` ends that. */
  async prefetch(signal: AbortSignal): Promise<void> {
    if (this.vocabulary * this.table.row_bytes > PREFETCH_BYTES) return;
    for (let index = 0; index * this.table.rows_per_chunk < this.vocabulary; index += 1) await this.chunk(index, signal);
  }

  private chunkOf(id: number): number {
    if (!Number.isInteger(id) || id < 0 || id >= this.vocabulary) {
      throw new BundleError('unknown_token', `The model has no token ${id}; the tokenizer and the model do not belong together.`);
    }
    return Math.floor(id / this.table.rows_per_chunk);
  }

  private chunk(index: number, signal?: AbortSignal): Promise<Float32Array> {
    let chunk = this.chunks.get(index);
    if (chunk === undefined) {
      chunk = this.fetchChunk(index, signal);
      this.chunks.set(index, chunk);
      // What failed once may succeed when asked for again.
      chunk.catch(() => this.chunks.delete(index));
    }
    return chunk;
  }

  private async fetchChunk(index: number, signal?: AbortSignal): Promise<Float32Array> {
    const { start, size } = chunkPlace(this.table, this.vocabulary, index);
    return new Float32Array((await this.files.readRange(this.table.file, start, size, this.hashOf(index), signal)).buffer);
  }

  private hashOf(index: number): string {
    return toHex(this.hashes.subarray(index * HASH_BYTES, (index + 1) * HASH_BYTES));
  }
}

/** Where chunk `index` of the table lies, in bytes; the last may be shorter. */
export function chunkPlace(table: { readonly row_bytes: number; readonly rows_per_chunk: number }, vocabulary: number, index: number): ChunkPlace {
  const firstRow = index * table.rows_per_chunk;
  const rows = Math.min(table.rows_per_chunk, vocabulary - firstRow);
  return { start: firstRow * table.row_bytes, size: rows * table.row_bytes };
}
