/** Keys and values of one block. */
import type { Feeds, Fetches, FloatType, Runtime, Tensor } from './ort';

export interface KvShape {
  readonly heads: number;
  readonly headDim: number;
  readonly type: FloatType;
}

type Outputs = Readonly<Record<string, Tensor>>;

export interface KvCache {
  /** Inputs for a run whose first row stands at `position`; what lies beyond is forgotten. */
  feeds(position: number): Feeds;
  /** Where the run shall write. */
  fetches(): Fetches;
  /** Take what the run gave. */
  keep(outputs: Outputs): void;
  /** `gpu-buffer` or `cpu`, once keys are really there; null before. */
  location(): Promise<string | null>;
  dispose(): void;
}

/**
 * On the GPU: one pair of buffers as large as the session, which every run reads as its past and writes as its present. Nothing
 * is copied and nothing is made anew; going back to an earlier position costs nothing, because a run says how much of it counts.
 */
export class StaticKv implements KvCache {
  private constructor(
    private readonly runtime: Runtime,
    private readonly key: Tensor,
    private readonly value: Tensor,
  ) {}

  static async make(runtime: Runtime, shape: KvShape, capacity: number): Promise<StaticKv> {
    const dims = [1, shape.heads, capacity, shape.headDim];
    return new StaticKv(runtime, await runtime.zeros(shape.type, dims), await runtime.zeros(shape.type, dims));
  }

  feeds(): Feeds {
    return { past_key: this.key, past_value: this.value };
  }

  fetches(): Fetches {
    return { present_key: this.key, present_value: this.value };
  }

  keep(): void {
    // They were written in place.
  }

  async location(): Promise<string | null> {
    return (await this.runtime.anyNonZero(this.key)) ? this.key.location : null;
  }

  dispose(): void {
    this.key.dispose();
    this.value.dispose();
  }
}

/**
 * On the processor: each run copies the past into the runtime's memory and the present out of it, so they are no longer than
 * need be. Only float32: the runtime computes nothing else there.
 */
export class GrowingKv implements KvCache {
  private key: Tensor;
  private value: Tensor;

  constructor(
    private readonly runtime: Runtime,
    private readonly shape: KvShape,
  ) {
    this.key = this.empty();
    this.value = this.empty();
  }

  feeds(position: number): Feeds {
    this.key = this.cut(this.key, position);
    this.value = this.cut(this.value, position);
    return { past_key: this.key, past_value: this.value };
  }

  fetches(): Fetches {
    return { present_key: null, present_value: null };
  }

  keep(outputs: Outputs): void {
    const { present_key: key, present_value: value } = outputs;
    if (key === undefined || value === undefined) throw new TypeError('the block gave no keys and values');
    this.dispose();
    this.key = key;
    this.value = value;
  }

  async location(): Promise<string | null> {
    return (await this.runtime.anyNonZero(this.key)) ? this.key.location : null;
  }

  dispose(): void {
    this.key.dispose();
    this.value.dispose();
  }

  private empty(): Tensor {
    return this.runtime.floats('float32', new Float32Array(0), [1, this.shape.heads, 0, this.shape.headDim]);
  }

  /** The first `length` positions of each head. */
  private cut(tensor: Tensor, length: number): Tensor {
    const { heads, headDim } = this.shape;
    const present = tensor.dims[2] ?? 0;
    if (present === length) return tensor;
    const from = tensor.data as Float32Array;
    const cut = new Float32Array(heads * length * headDim);
    for (let head = 0; head < heads; head += 1) {
      const first = head * present * headDim;
      cut.set(from.subarray(first, first + length * headDim), head * length * headDim);
    }
    return this.runtime.floats('float32', cut, [1, heads, length, headDim]);
  }
}
