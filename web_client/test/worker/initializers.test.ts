import { expect, test } from 'vitest';
import { withInitializers } from '../../src/worker/initializers';

test('initializers are what the ONNX library writes', () => {
  // onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor])).SerializeToString().hex(), where `tensor` has external data
  const written =
    '3a532a51088008081010014209636f735f63616368656a190a086c6f636174696f6e120d636f6e7374616e74732e62696e6a0f0a066f6666736574120536353533366a0f0a066c656e677468120536353533367001';
  const graph = Uint8Array.of(8, 9);
  const added = withInitializers(graph, [{ input: 'cos_cache', type: 'float32', dims: [1024, 16], file: 'constants.bin', offset: 65536, bytes: 65536 }]);
  expect(Buffer.from(added).toString('hex')).toBe(`0809${written}`);
});
