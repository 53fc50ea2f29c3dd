import { expect, test } from 'vitest';
import { fromFloat16Portable, toFloat16Portable } from '../../src/protocol/float16';

const everyPattern = Uint16Array.from({ length: 0x10000 }, (_, bits) => bits);
const isNaN16 = (bits: number): boolean => (bits & 0x7c00) === 0x7c00 && (bits & 0x3ff) !== 0;
const encoded = (...values: number[]): string[] => [...toFloat16Portable(Float32Array.from(values))].map((bits) => bits.toString(16).padStart(4, '0'));

test('every float16 survives the way to float32 and back', () => {
  const back = toFloat16Portable(fromFloat16Portable(everyPattern));
  expect(everyPattern.filter((bits, index) => !isNaN16(bits) && back[index] !== bits)).toHaveLength(0);
  expect(everyPattern.filter((bits, index) => isNaN16(bits) && !isNaN16(back[index] ?? 0))).toHaveLength(0);
});

test('known values have the bits that IEEE 754 gives them', () => {
  expect(encoded(1, -2, 0.333251953125, 65504, 2 ** -14, 2 ** -24, -0)).toEqual(['3c00', 'c000', '3555', '7bff', '0400', '0001', '8000']);
});

test('a value half way between two goes to the even one, and anything beyond half way goes on', () => {
  const step = 2 ** -10; // between 1 and 2
  expect(encoded(1 + step / 2, 1 + (3 * step) / 2, 1 + step / 2 + 2 ** -20, 1 + step / 2 - 2 ** -20)).toEqual(['3c00', '3c02', '3c01', '3c00']);
});

test('rounding up may carry into the exponent, out of the subnormals and to infinity', () => {
  expect(encoded(2 - 2 ** -12, 1023.75 * 2 ** -24, 65519, 65520, 1e30, -1e30)).toEqual(['4000', '0400', '7bff', '7c00', '7c00', 'fc00']);
});

test('what is below half of the smallest subnormal is zero', () => {
  expect(encoded(2 ** -25, 2 ** -25 * 1.001, 2 ** -26, 3 * 2 ** -25)).toEqual(['0000', '0001', '0000', '0002']);
});
