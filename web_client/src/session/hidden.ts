import { fromFloat16, toFloat16 } from '../protocol/float16';

/** Hidden states, row-major; float16 as bits. */
export type Hidden = { readonly dtype: 'float32'; readonly values: Float32Array } | { readonly dtype: 'float16'; readonly values: Uint16Array };

/** The same states in the dtype that the wire carries. */
export function inWireDtype(hidden: Hidden, wire: 'float16' | 'float32'): Hidden {
  if (hidden.dtype === wire) return hidden;
  return hidden.dtype === 'float32' ? { dtype: 'float16', values: toFloat16(hidden.values) } : { dtype: 'float32', values: fromFloat16(hidden.values) };
}

/** The last `rows` rows of `columns` values. */
export function lastRows(hidden: Hidden, rows: number, columns: number): Hidden {
  const first = hidden.values.length - rows * columns;
  return hidden.dtype === 'float32' ? { dtype: 'float32', values: hidden.values.subarray(first) } : { dtype: 'float16', values: hidden.values.subarray(first) };
}

/** Whether no value is NaN or infinite. */
export function isFinite(hidden: Hidden): boolean {
  if (hidden.dtype === 'float32') return hidden.values.every(Number.isFinite);
  return hidden.values.every((bits) => (bits & 0x7c00) !== 0x7c00);
}
