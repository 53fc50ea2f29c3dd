import { expect, it } from 'vitest';
import { Pace } from '../../src/page/pace';

it('is not known before a second has passed and something has come', () => {
  const pace = new Pace();
  expect(pace.left(0, 0, 1000)).toBeNull();
  expect(pace.left(900, 100, 1000)).toBeNull();
  expect(pace.left(1000, 100, 1000)).toBe(9000);
  expect(new Pace().left(5000, 100, 1000)).toBeNull();
});

it('is that of the last ten seconds, whatever was before', () => {
  const pace = new Pace();
  for (let second = 0; second <= 30; second += 1) pace.left(second * 1000, second * 10, 10_000);
  for (let second = 31; second <= 50; second += 1) pace.left(second * 1000, 300 + (second - 30) * 100, 10_000);
  expect(pace.left(50_000, 2300, 10_000)).toBeCloseTo(77_000, 0);
});

it('grows while nothing comes', () => {
  const pace = new Pace();
  pace.left(0, 0, 1000);
  expect(pace.left(2000, 500, 1000)).toBe(2000);
  expect(pace.left(4000, 500, 1000)).toBe(4000);
});

it('begins again with another download, and after a pause', () => {
  const pace = new Pace();
  pace.left(0, 0, 1000);
  pace.left(2000, 500, 1000);
  expect(pace.left(3000, 100, 2000)).toBeNull();
  expect(pace.left(4000, 200, 2000)).toBe(18_000);
  pace.forget();
  expect(pace.left(60_000, 200, 2000)).toBeNull();
});
