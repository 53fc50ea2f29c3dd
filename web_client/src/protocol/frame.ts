/** Binary frames: a header of 32 bytes, little-endian, and one raw tensor (PROTOCOL.md, section 2). */
import { ProtocolError } from './errors';

export const HEADER_BYTES = 32;

export type Kind = 'ids' | 'hidden' | 'token';
export type DType = 'float32' | 'float16' | 'int32';

interface Place {
  readonly turn: number;
  /** Position of the first row. */
  readonly position: number;
  readonly rows: number;
  readonly columns: number;
}

/** `values` is row-major; float16 is kept as its bits, because not every browser has `Float16Array`. */
export type Frame =
  | (Place & { readonly kind: 'ids' | 'token'; readonly dtype: 'int32'; readonly values: Int32Array })
  | (Place & { readonly kind: 'hidden'; readonly dtype: 'float32'; readonly values: Float32Array })
  | (Place & { readonly kind: 'hidden'; readonly dtype: 'float16'; readonly values: Uint16Array });

const MAGIC = [0x53, 0x50, 0x4c, 0x4d];
const VERSION = 1;
const LIMIT = 2 ** 31 - 1;
const KINDS: readonly (Kind | undefined)[] = [undefined, 'ids', 'hidden', 'token'];
const DTYPES: readonly (DType | undefined)[] = [undefined, 'float32', 'float16', 'int32'];
const BYTES: Readonly<Record<DType, number>> = { float32: 4, float16: 2, int32: 4 };

/** Bytes of one frame; the tensor is copied once. */
export function encodeFrame(frame: Frame): ArrayBuffer {
  const payload = frame.rows * frame.columns * BYTES[frame.dtype];
  const fits = frame.turn >= 1 && frame.turn <= LIMIT && frame.position >= 0 && frame.position + frame.rows <= LIMIT;
  if (!fits || frame.rows < 1 || frame.columns < 1 || payload > LIMIT || payload !== frame.values.byteLength) {
    throw new ProtocolError('malformed_frame', `A frame of ${frame.rows} rows at position ${frame.position} cannot be written; this is a fault of the client.`);
  }
  const bytes = new ArrayBuffer(HEADER_BYTES + payload);
  const header = new DataView(bytes);
  MAGIC.forEach((byte, index) => {
    header.setUint8(index, byte);
  });
  header.setUint8(4, VERSION);
  header.setUint8(5, KINDS.indexOf(frame.kind));
  header.setUint8(6, DTYPES.indexOf(frame.dtype));
  header.setUint32(8, frame.turn, true);
  header.setUint32(12, frame.position, true);
  header.setUint32(16, frame.rows, true);
  header.setUint32(20, frame.columns, true);
  header.setUint32(24, payload, true);
  // Typed arrays are little-endian wherever browsers run, so the tensor's bytes are the wire's.
  const { buffer, byteOffset, byteLength } = frame.values;
  new Uint8Array(bytes, HEADER_BYTES).set(new Uint8Array(buffer, byteOffset, byteLength));
  return bytes;
}

/** The frame in `bytes`; its values view `bytes`, nothing is copied. Throws `malformed_frame`, naming the field. */
export function decodeFrame(bytes: ArrayBuffer): Frame {
  if (bytes.byteLength < HEADER_BYTES) throw malformed(`${bytes.byteLength} bytes are fewer than a header has`);
  const header = new DataView(bytes);
  if (MAGIC.some((byte, index) => header.getUint8(index) !== byte)) throw malformed('it does not begin with SPLM');
  const version = header.getUint8(4);
  if (version !== VERSION) throw malformed(`version ${version} is not ${VERSION}`);
  const kind = KINDS[header.getUint8(5)];
  if (kind === undefined) throw malformed('its kind is unknown');
  const dtype = DTYPES[header.getUint8(6)];
  if (dtype === undefined) throw malformed('its dtype is unknown');
  if ((kind === 'hidden') === (dtype === 'int32')) throw malformed(`${kind} cannot carry ${dtype}`);
  if (header.getUint8(7) !== 0) throw malformed('its flags are not 0');
  const turn = header.getUint32(8, true);
  if (turn < 1 || turn > LIMIT) throw malformed(`its turn ${turn} is out of range`);
  const position = header.getUint32(12, true);
  const rows = header.getUint32(16, true);
  if (rows < 1 || position + rows > LIMIT) throw malformed(`${rows} rows at position ${position} are out of range`);
  const columns = header.getUint32(20, true);
  if (columns < 1 || columns > LIMIT || (kind !== 'hidden' && columns !== 1)) throw malformed(`${kind} cannot have ${columns} columns`);
  const payload = header.getUint32(24, true);
  // The product may pass 2^53 and lose its last digits, but then it is far above any payload allowed.
  if (payload > LIMIT || payload !== rows * columns * BYTES[dtype]) throw malformed('its payload is not rows × columns × size of dtype');
  if (header.getUint32(28, true) !== 0) throw malformed('its reserved field is not 0');
  if (bytes.byteLength !== HEADER_BYTES + payload) throw malformed(`it has ${bytes.byteLength} bytes where its header says ${HEADER_BYTES + payload}`);

  const place = { turn, position, rows, columns };
  if (kind !== 'hidden') return { ...place, kind, dtype: 'int32', values: new Int32Array(bytes, HEADER_BYTES) };
  if (dtype === 'float32') return { ...place, kind, dtype, values: new Float32Array(bytes, HEADER_BYTES) };
  return { ...place, kind, dtype: 'float16', values: new Uint16Array(bytes, HEADER_BYTES) };
}

function malformed(why: string): ProtocolError {
  return new ProtocolError('malformed_frame', `The server sent a message that is no frame: ${why}. Reload the page; if it happens again, report it.`);
}
