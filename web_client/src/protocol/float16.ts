/** IEEE 754 binary16, as bits. Rounding is to nearest, ties to even. */

/** Bits of the float16 nearest to each value; what is above 65519.99 becomes infinity, as the standard has it. */
export function toFloat16(values: Float32Array): Uint16Array {
  if (typeof Float16Array !== 'undefined') return new Uint16Array(new Float16Array(values).buffer);
  return toFloat16Portable(values);
}

/** The values that float16 bits stand for; exact. */
export function fromFloat16(bits: Uint16Array): Float32Array {
  if (typeof Float16Array !== 'undefined') return new Float32Array(new Float16Array(bits.slice().buffer));
  return fromFloat16Portable(bits);
}

/** For browsers without `Float16Array`; exported for its test. */
export function toFloat16Portable(values: Float32Array): Uint16Array {
  const source = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return Uint16Array.from(source, encode);
}

/** For browsers without `Float16Array`; exported for its test. */
export function fromFloat16Portable(bits: Uint16Array): Float32Array {
  return Float32Array.from(bits, decode);
}

function encode(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const exponent = (bits >>> 23) & 0xff;
  const mantissa = bits & 0x7fffff;
  if (exponent === 0xff) return sign | 0x7c00 | (mantissa === 0 ? 0 : 0x200); // infinity, NaN
  const scale = exponent - 112; // the exponent as float16 counts it
  if (scale >= 0x1f) return sign | 0x7c00;
  // A carry out of the mantissa runs into the exponent, which is just what rounding up to the next power of two means.
  if (scale > 0) return sign | (((scale << 10) | (mantissa >>> 13)) + roundsUp(mantissa, 13));
  const shift = 14 - scale; // subnormal: the leading one becomes part of the mantissa
  if (shift > 24) return sign; // below half of the smallest subnormal
  const whole = mantissa | 0x800000;
  return sign | ((whole >>> shift) + roundsUp(whole, shift));
}

/** 1 when the `dropped` lowest bits of `value` round its rest up. */
function roundsUp(value: number, dropped: number): 0 | 1 {
  const half = 1 << (dropped - 1);
  const rest = value & ((1 << dropped) - 1);
  if (rest !== half) return rest > half ? 1 : 0;
  return (value >>> dropped) & 1 ? 1 : 0;
}

function decode(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  if (exponent === 0x1f) return mantissa === 0 ? sign * Infinity : NaN;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  return sign * (1024 + mantissa) * 2 ** (exponent - 25);
}
