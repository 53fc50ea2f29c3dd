/** Values written into an ONNX graph, for what would else be fed again with every run. */

/** Little-endian values of a graph's input, in a file beside the graph. */
export interface Initializer {
  readonly input: string;
  readonly type: 'float32' | 'float16';
  readonly dims: readonly number[];
  readonly file: string;
  readonly offset: number;
  readonly bytes: number;
}

// Field numbers and values of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
const MODEL_GRAPH = 7;
const GRAPH_INITIALIZER = 5;
const TENSOR = { dims: 1, dataType: 2, name: 8, externalData: 13, dataLocation: 14 };
const ENTRY = { key: 1, value: 2 };
const DATA_TYPE = { float32: 1, float16: 10 };
const EXTERNAL = 1;

/**
 * The graph with values for these inputs. An initializer of an input's name is what it is when nothing is fed (ONNX IR, from version
 * 4 on), and Protocol Buffers merge messages that are concatenated, so what is added is a model of nothing but initializers.
 */
export function withInitializers(graph: Uint8Array, initializers: readonly Initializer[]): Uint8Array {
  const added = message(MODEL_GRAPH, initializers.flatMap((initializer) => message(GRAPH_INITIALIZER, tensor(initializer))));
  const whole = new Uint8Array(graph.length + added.length);
  whole.set(graph);
  whole.set(added, graph.length);
  return whole;
}

function tensor({ input, type, dims, file, offset, bytes }: Initializer): number[] {
  const place = { location: file, offset: String(offset), length: String(bytes) };
  return [
    ...dims.flatMap((dim) => number(TENSOR.dims, dim)),
    ...number(TENSOR.dataType, DATA_TYPE[type]),
    ...text(TENSOR.name, input),
    ...Object.entries(place).flatMap(([key, value]) => message(TENSOR.externalData, [...text(ENTRY.key, key), ...text(ENTRY.value, value)])),
    ...number(TENSOR.dataLocation, EXTERNAL),
  ];
}

/** https://protobuf.dev/programming-guides/encoding/ */
const number = (field: number, value: number): number[] => [...varint(field * 8), ...varint(value)];

const message = (field: number, bytes: readonly number[]): number[] => [...varint(field * 8 + 2), ...varint(bytes.length), ...bytes];

const text = (field: number, value: string): number[] => message(field, [...new TextEncoder().encode(value)]);

function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  return [...bytes, value];
}
