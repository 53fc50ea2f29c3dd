import { expect, test } from 'vitest';
import type { Variant } from '../../src/api';
import { chunkPlace } from '../../src/bundle/embedding';
import type { Manifest } from '../../src/bundle/manifest';
import { blockBytes, blockParts, variantsToTry } from '../../src/bundle/parts';

const MIB = 2 ** 20;

function manifestOf(megabytes: Partial<Record<Variant, number>>, blocks = 2): Manifest {
  const files: Manifest['files'] = {};
  const variantsOf = (index: number) =>
    Object.fromEntries(
      Object.entries(megabytes).map(([variant, size]) => {
        files[`${index}.${variant}.onnx`] = { size: 0, sha256: '' };
        files[`${index}.${variant}.bin`] = { size: size * MIB, sha256: '' };
        const activations = variant.endsWith('f16') || variant === 'float16' ? 'float16' : 'float32';
        return [variant, { graph: `${index}.${variant}.onnx`, weights: `${index}.${variant}.bin`, activations, constants: { cos_cache: 'cos' } }];
      }),
    ) as unknown as Manifest['blocks'][number];
  return {
    blocks: Array.from({ length: blocks }, (_, index) => variantsOf(index)),
    constants: { cos: { float32: { file: 'rope', offset: 64, shape: [4, 2] }, float16: { file: 'rope16', offset: 0, shape: [4, 2] } } },
    files,
  } as unknown as Manifest;
}

test('a small model runs exactly, a large one in 4 bits, and in float16 first where the bundle has that', () => {
  expect(variantsToTry(manifestOf({ float32: 32, int4: 4, int4f16: 4, float16: 16 }), 'auto')).toEqual(['float32']);
  expect(variantsToTry(manifestOf({ float32: 33, int4: 4 }), 'auto')).toEqual(['int4']);
  expect(variantsToTry(manifestOf({ float32: 33, int4: 4, int4f16: 4 }), 'auto')).toEqual(['int4f16', 'int4']);
  expect(variantsToTry(manifestOf({ float32: 33, int4f16: 4 }), 'auto')).toEqual(['int4f16', 'float32']);
  expect(variantsToTry(manifestOf({ float32: 500 }), 'auto')).toEqual(['float32']);
});

test('a variant that is asked for is followed by its like in float32, and refused when it is not there', () => {
  expect(variantsToTry(manifestOf({ float32: 1, int8: 1 }), 'int8')).toEqual(['int8']);
  expect(variantsToTry(manifestOf({ float32: 1, float16: 1, int4: 1 }), 'float16')).toEqual(['float16', 'float32']);
  expect(variantsToTry(manifestOf({ float32: 1, int4: 1, int4f16: 1 }), 'int4f16')).toEqual(['int4f16', 'int4']);
  expect(() => variantsToTry(manifestOf({ float32: 1 }), 'int4')).toThrow(expect.objectContaining({ code: 'variant_unavailable' }));
});

test('the parts of a block name its files and where its constants lie', () => {
  const manifest = manifestOf({ float32: 3 });
  expect(blockBytes(manifest, 'float32')).toEqual([3 * MIB, 3 * MIB]);
  expect(blockParts(manifest, 1, 'float32')).toEqual({
    graph: '1.float32.onnx',
    weights: '1.float32.bin',
    activations: 'float32',
    constants: new Map([['cos_cache', { file: 'rope', offset: 64, shape: [4, 2] }]]),
  });
  expect(() => blockParts(manifest, 2, 'float32')).toThrow(expect.objectContaining({ code: 'variant_unavailable' }));
});

test('the last chunk of the embedding may be shorter', () => {
  const table = { row_bytes: 512, rows_per_chunk: 128 };
  expect(chunkPlace(table, 300, 0)).toEqual({ start: 0, size: 65536 });
  expect(chunkPlace(table, 300, 2)).toEqual({ start: 131072, size: 44 * 512 });
});
