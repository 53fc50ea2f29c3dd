import { expect, test } from 'vitest';
import type { Manifest } from '../../src/bundle/manifest';
import { rungsOf, ruledOut } from '../../src/worker/rungs';

const block = (activations: string): unknown => ({ graph: '', weights: null, activations, constants: {} });
const manifest = { blocks: [{ float32: block('float32'), float16: block('float16') }], files: {} } as unknown as Manifest;
const names = (rungs: readonly { backend: string; variant: string }[]): string[] => rungs.map(({ backend, variant }) => `${backend} ${variant}`);

test('the ladder goes from WebGPU in float16 by WebGPU in float32 to the processor', () => {
  expect(names(rungsOf(manifest, 'auto', 'float16'))).toEqual(['webgpu float16', 'webgpu float32', 'wasm float32']);
  expect(names(rungsOf(manifest, 'webgpu', 'auto'))).toEqual(['webgpu float32', 'wasm float32']);
  expect(names(rungsOf(manifest, 'wasm', 'float16'))).toEqual(['wasm float32']);
  expect(rungsOf(manifest, 'none', 'auto')).toEqual([]);
});

test('what failed is not tried again, and a device that is gone takes all its rungs with it', () => {
  const rungs = rungsOf(manifest, 'auto', 'float16');
  const left = (code: string): string[] => names(rungs.filter((rung) => !ruledOut(rung, [{ backend: 'webgpu', variant: 'float16', code }])));
  expect(left('out_of_memory')).toEqual(['webgpu float32', 'wasm float32']);
  expect(left('device_lost')).toEqual(['wasm float32']);
  expect(left('webgpu_unavailable')).toEqual(['wasm float32']);
});
