import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { beforeEach, expect, test, vi } from 'vitest';
import type { Gpu } from '../../src/worker/gpu';
import type { Runtime, Session, Tensor } from '../../src/worker/ort';

const created = vi.hoisted(() => [] as { extra?: unknown }[]);

vi.mock('onnxruntime-web/webgpu', () => ({
  env: { wasm: {} },
  InferenceSession: { create: (_graph: unknown, options: { extra?: unknown }) => Promise.resolve(created.push(options)) },
}));

/** Tells the runtime of an error of its device. */
let told: (event: { error: unknown }) => void = () => undefined;

/** A device whose copies give `bytes`, or that is gone. */
function gpuOf(bytes: Uint8Array | null, lost = new Promise<void>(() => undefined)): Gpu {
  const copy = { mapAsync: () => (bytes === null ? Promise.reject(new Error('gone')) : Promise.resolve()), getMappedRange: () => bytes?.buffer, destroy: () => undefined };
  const device = {
    lost,
    addEventListener: (_type: string, listener: typeof told) => (told = listener),
    createBuffer: () => copy,
    createCommandEncoder: () => ({ copyBufferToBuffer: () => undefined, finish: () => undefined }),
    queue: { submit: () => undefined },
  };
  return { device, vendor: '', architecture: '', shaderF16: false } as unknown as Gpu;
}

async function runtimeOn(gpu: Gpu | null): Promise<Runtime> {
  vi.stubGlobal('self', { location: { origin: 'http://test' } });
  vi.stubGlobal('GPUBufferUsage', {});
  vi.stubGlobal('GPUMapMode', {});
  const ort = await import('../../src/worker/ort');
  return new ort.Runtime(gpu, 1);
}

beforeEach(() => {
  created.length = 0;
});

test('a block on WebGPU may not fall back to the processor; one on the processor may be there', async () => {
  const graph = { graph: new Uint8Array(0), files: [] };
  await (await runtimeOn(gpuOf(null))).compile(graph);
  await (await runtimeOn(null)).compile(graph);
  expect(created.map((options) => options.extra)).toEqual([{ session: { disable_cpu_ep_fallback: '1' } }, {}]);
});

test.each([
  ['out_of_memory', true],
  ['device_failed', false],
])('an error of the device that ONNX Runtime does not hear of is %s', async (code, memory) => {
  class MemoryError extends Error {}
  vi.stubGlobal('GPUOutOfMemoryError', MemoryError);
  const runtime = await runtimeOn(gpuOf(null));
  told({ error: memory ? new MemoryError() : new Error('limits') });
  await expect(runtime.compile({ graph: new Uint8Array(0), files: [] })).rejects.toMatchObject({ name: 'RuntimeError', code });
});

test.each([
  ['written', Uint8Array.of(0, 0, 0, 1), true],
  ['still clear', Uint8Array.of(0, 0, 0, 0), false],
  ['gone with its device', null, false],
])('a buffer of the device that is %s', async (_, bytes, found) => {
  const tensor = { gpuBuffer: { size: 64 } } as unknown as Tensor;
  await expect((await runtimeOn(gpuOf(bytes))).anyNonZero(tensor)).resolves.toBe(found);
});

test('no result of a call outlives its user', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const runtime = await runtimeOn(null);
  const results: WeakRef<object>[] = [];
  const session = {
    run: () => {
      const outputs = { key: new Float32Array(1000) };
      results.push(new WeakRef(outputs));
      return Promise.resolve(outputs);
    },
  } as unknown as Session;
  for (let step = 0; step < 10; step += 1) await runtime.run(session, {}, {});
  await new Promise((resolve) => setTimeout(resolve));
  collect();
  // The last call may still be known.
  expect(results.slice(0, -1).filter((result) => result.deref() !== undefined)).toEqual([]);
});

test('a call of a device that goes away ends, also where ONNX Runtime never finishes it', async () => {
  let lose: () => void = () => undefined;
  const lost = new Promise<void>((resolve) => (lose = resolve));
  const runtime = await runtimeOn(gpuOf(null, lost));
  const hangs = { run: () => new Promise(() => undefined) } as unknown as Session;
  const under = runtime.run(hangs, {}, {});
  const after = runtime.run(hangs, {}, {});
  lose();
  for (const call of [under, after]) await expect(call).rejects.toMatchObject({ code: 'device_lost' });
});

test('values on the processor', async () => {
  const runtime = await runtimeOn(null);
  const tensor = (...values: number[]): Tensor => ({ data: Float32Array.from(values), size: values.length }) as unknown as Tensor;
  await expect(runtime.anyNonZero(tensor(0, 2))).resolves.toBe(true);
  await expect(runtime.anyNonZero(tensor(0, 0))).resolves.toBe(false);
  await expect(runtime.anyNonZero(tensor())).resolves.toBe(false);
});
