import { expect, test } from 'vitest';
import { chunks, commonPrefix, rowsPerFrame } from '../../src/session/span';

test('a span is cut into pieces that cover it once', () => {
  expect(chunks({ start: 3, end: 10 }, 3)).toEqual([
    { start: 3, end: 6 },
    { start: 6, end: 9 },
    { start: 9, end: 10 },
  ]);
  expect(chunks({ start: 5, end: 5 }, 3)).toEqual([]);
});

test('a frame has no more rows than the server and its message limit allow', () => {
  expect(rowsPerFrame({ max_rows: 512, max_message_bytes: 1 << 20 }, 256)).toBe(64);
  expect(rowsPerFrame({ max_rows: 16, max_message_bytes: 1 << 20 }, 256)).toBe(16);
  expect(rowsPerFrame({ max_rows: 512, max_message_bytes: 32 + 256 * 5 + 255 }, 256)).toBe(5);
});

test('the common prefix ends at the first difference, or with the shorter', () => {
  expect(commonPrefix([1, 2, 3], [1, 2, 4])).toBe(2);
  expect(commonPrefix([1, 2], [1, 2, 4])).toBe(2);
  expect(commonPrefix([], [1])).toBe(0);
});
