/** The one file that imports onnxruntime-web: sessions, tensors and runs, one at a time. */
import * as ort from 'onnxruntime-web/webgpu';
import { RuntimeError } from '../protocol/errors';
import type { Gpu } from './gpu';

export type Tensor = ort.Tensor;
export type Session = ort.InferenceSession;
export type Feeds = Readonly<Record<string, Tensor>>;
/** An output's tensor to write into, or null to have one made. */
export type Fetches = Readonly<Record<string, Tensor | null>>;
export type FloatType = 'float32' | 'float16';

export interface Graph {
  readonly graph: Uint8Array;
  /** What the graph's tensors lie in. */
  readonly files: readonly { readonly path: string; readonly data: Uint8Array }[];
}

// Beside this script, which may run in a page of another origin.
ort.env.wasm.wasmPaths = new URL(__ORT_FOLDER__, import.meta.url).href;
ort.env.logLevel = 'error';

/** Overlapping calls into the runtime hang the page, whatever session they are of: all of them go through this chain. */
let last: Promise<unknown> = Promise.resolve();

/** As much of a tensor as proves that somebody wrote it. */
const PEEK_BYTES = 64;

const NEWS_OF_LOSS_MS = 500;

const BYTES: Readonly<Record<FloatType, number>> = { float32: 4, float16: 2 };

export class Runtime {
  /** Resolves when the device has gone away. */
  private readonly lost: Promise<void>;
  /** Ends the call that is under way: ONNX Runtime may answer the loss of its device by never finishing it. */
  private interrupt: (error: RuntimeError) => void = () => undefined;
  /** Set when the device is gone, or could not do what ONNX Runtime told it, of which ONNX Runtime does not hear. */
  private fault: RuntimeError | null = null;

  /** `threads` counts for wasm, and only for the first runtime of the worker. */
  constructor(
    readonly gpu: Gpu | null,
    threads: number,
  ) {
    ort.env.wasm.numThreads = threads;
    const lost = gpu?.device.lost ?? new Promise<never>(() => undefined);
    this.lost = lost.then(() => {
      this.fault = deviceLost();
      this.interrupt(this.fault);
    });
    // A buffer that is larger than the adapter's limits or the memory is one that holds nothing: blocks would compute nonsense with it.
    gpu?.device.addEventListener('uncapturederror', ({ error }) => {
      this.fault ??= error instanceof GPUOutOfMemoryError ? memoryFull() : new RuntimeError('device_failed', 'The graphics here cannot hold or run a block of this model; the server takes over.');
    });
  }

  get backend(): 'webgpu' | 'wasm' {
    return this.gpu === null ? 'wasm' : 'webgpu';
  }

  /** Every output stays on the device; `download` brings one to the processor. Throws `block_unusable`. */
  async compile({ graph, files }: Graph): Promise<Session> {
    const options: ort.InferenceSession.SessionOptions = {
      executionProviders: [this.gpu === null ? 'wasm' : { name: 'webgpu', device: this.gpu.device }],
      preferredOutputLocation: this.gpu === null ? 'cpu' : 'gpu-buffer',
      // An operator that WebGPU lacks would else run on the processor, block after block, without a word.
      extra: this.gpu === null ? {} : { session: { disable_cpu_ep_fallback: '1' } },
      externalData: files,
      logSeverityLevel: 3,
    };
    return this.alone('block_unusable', 'A block could not be loaded', () => ort.InferenceSession.create(graph, options));
  }

  /** Throws `run_failed`. */
  async run(session: Session, feeds: Feeds, fetches: Fetches): Promise<Readonly<Record<string, Tensor>>> {
    return this.alone('run_failed', 'A block stopped computing', () => session.run(feeds, fetches));
  }

  /** The values, wherever they are; the tensor is gone afterwards. float16 comes as bits. */
  async download(tensor: Tensor): Promise<Float32Array | Uint16Array> {
    const data = await this.alone('run_failed', 'The result of a block could not be read', () => tensor.getData(true));
    if (data instanceof Float32Array) return data;
    // float16 comes as Float16Array or as Uint16Array, as the browser has it.
    if (ArrayBuffer.isView(data) && data.byteLength === 2 * tensor.size) return new Uint16Array(data.buffer, data.byteOffset, tensor.size);
    throw new RuntimeError('run_failed', 'A block gave a result of an unknown type; report this to the operator.');
  }

  /** Whether any of the first few values of a tensor is not zero, wherever they are. Not through ONNX Runtime, so at any time. */
  async anyNonZero(tensor: Tensor): Promise<boolean> {
    if (this.gpu === null) return tensor.size > 0 && (tensor.data as Float32Array).subarray(0, PEEK_BYTES / 4).some((value) => value !== 0);
    const { device } = this.gpu;
    const copy = device.createBuffer({ size: PEEK_BYTES, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
    try {
      const encoder = device.createCommandEncoder();
      const buffer: GPUBuffer = tensor.gpuBuffer;
      encoder.copyBufferToBuffer(buffer, 0, copy, 0, Math.min(PEEK_BYTES, buffer.size));
      device.queue.submit([encoder.finish()]);
      await copy.mapAsync(GPUMapMode.READ);
      return new Uint8Array(copy.getMappedRange()).some((byte) => byte !== 0);
    } catch {
      return false; // the device is gone, and the values with it
    } finally {
      copy.destroy();
    }
  }

  async release(session: Session): Promise<void> {
    await this.alone('run_failed', 'A block could not be released', () => session.release());
  }

  integers(values: readonly number[], dims: readonly number[]): Tensor {
    return new ort.Tensor('int32', Int32Array.from(values), dims);
  }

  /** A tensor of the processor's; the runtime copies it to the device when it runs. */
  floats(type: FloatType, values: Float32Array | Uint16Array, dims: readonly number[]): Tensor {
    if (type === 'float32') return new ort.Tensor('float32', values as Float32Array, dims);
    // The constructor takes only what the browser itself would use for float16.
    const data = typeof Float16Array === 'undefined' ? values : new Float16Array(values.buffer, values.byteOffset, values.length);
    return new ort.Tensor('float16', data as Uint16Array, dims);
  }

  /** A tensor that stays on the device for many runs. */
  resident(type: FloatType, values: Float32Array | Uint16Array, dims: readonly number[]): Tensor {
    if (this.gpu === null) return this.floats(type, values, dims);
    const { tensor, buffer } = this.buffer(this.gpu.device, type, dims);
    this.gpu.device.queue.writeBuffer(buffer, 0, values.buffer, values.byteOffset, values.byteLength);
    return tensor;
  }

  /** Zeros that stay on the device. Throws `out_of_memory` when the device has no room for them. */
  async zeros(type: FloatType, dims: readonly number[]): Promise<Tensor> {
    const elements = dims.reduce((product, dim) => product * dim, 1);
    if (this.gpu === null) return this.floats(type, type === 'float32' ? new Float32Array(elements) : new Uint16Array(elements), dims);
    const { device } = this.gpu;
    device.pushErrorScope('out-of-memory');
    const { tensor } = this.buffer(device, type, dims); // WebGPU clears new buffers
    if ((await device.popErrorScope()) !== null) {
      tensor.dispose();
      throw memoryFull();
    }
    return tensor;
  }

  /** Call the runtime when nobody else does. */
  private alone<T>(code: string, what: string, call: () => Promise<T>): Promise<T> {
    const mine = last.then(async () => {
      // No `Promise.race` with a promise that stays open: that one would remember every call there ever was.
      const result = await new Promise<T>((resolve, reject) => {
        this.interrupt = reject;
        if (this.fault?.code === 'device_lost') reject(this.fault);
        call().then(resolve, reject);
      });
      if (this.fault !== null) throw this.fault;
      return result;
    });
    last = mine.catch(() => undefined);
    return mine.catch(async (error: unknown) => {
      if (error instanceof RuntimeError) throw error;
      // What calls say of a device that has just gone comes before the news of it, and says nothing to a person.
      if (this.gpu !== null) await Promise.race([this.lost, new Promise((resolve) => setTimeout(resolve, NEWS_OF_LOSS_MS))]);
      if (this.fault !== null) throw this.fault;
      const reason = error instanceof Error ? error.message : String(error);
      throw new RuntimeError(code, `${what} (${reason.slice(0, 200)}); the server takes over.`);
    });
  }

  private buffer(device: GPUDevice, type: FloatType, dims: readonly number[]): { tensor: Tensor; buffer: GPUBuffer } {
    const bytes = dims.reduce((product, dim) => product * dim, BYTES[type]);
    const buffer = device.createBuffer({ size: Math.ceil(bytes / 16) * 16, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST });
    const dispose = (): void => {
      buffer.destroy();
    };
    return { tensor: ort.Tensor.fromGpuBuffer(buffer, { dataType: type, dims, dispose }), buffer };
  }
}

export const deviceLost = (): RuntimeError => new RuntimeError('device_lost', 'The graphics device went away; the server takes over.');

const memoryFull = (): RuntimeError => new RuntimeError('out_of_memory', 'The graphics memory is full; the server takes over.');
