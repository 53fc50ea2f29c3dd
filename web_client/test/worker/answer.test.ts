import { afterEach, expect, test, vi } from 'vitest';
import { Answer } from '../../src/worker/answer';

const codec = { decode: (ids: readonly number[]) => String.fromCharCode(...ids), encode: () => [], encodeChat: () => [] };
const SAMPLING = { temperature: 0, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1, seed: null };

afterEach(() => {
  vi.restoreAllMocks();
});

/** Figures of an answer that was asked for at 0 and whose tokens came at these milliseconds. */
function figures(...arrivals: number[]): { ttftMs: number | null; tpotMs: number | null } {
  const clock = vi.spyOn(performance, 'now').mockReturnValue(0);
  const answer = new Answer({ type: 'ask', ask: 1, messages: [], sampling: SAMPLING, maxTokens: 8, stop: [] }, codec as never);
  for (const at of arrivals) {
    clock.mockReturnValue(at);
    answer.push([65]);
  }
  const { ttftMs, tpotMs } = answer.stats;
  return { ttftMs, tpotMs };
}

test('the pace is that of the tokens after the first', () => {
  expect(figures(100, 110, 130)).toEqual({ ttftMs: 100, tpotMs: 15 });
  expect(figures(100)).toEqual({ ttftMs: 100, tpotMs: null });
  expect(figures()).toEqual({ ttftMs: null, tpotMs: null });
});

test('tokens that were read together have none', () => {
  expect(figures(51, 51.2, 51.4, 52)).toEqual({ ttftMs: 51, tpotMs: null });
});
