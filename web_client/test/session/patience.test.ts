import { expect, test } from 'vitest';
import { Patience, PATIENCE_S } from '../../src/session/patience';
import type { Owed } from '../../src/session/patience';

/** Seconds until patience is out, of at most 100. */
function secondsUntilOut(patience: Patience, owed: Owed | null): number | null {
  for (let second = 1; second <= 100; second += 1) if (patience.tick(owed)) return second;
  return null;
}

test.each(['reply', 'step'] as const)('ends when a %s is owed for too long', (owed) => {
  expect(secondsUntilOut(new Patience(), owed)).toBe(PATIENCE_S[owed] + 1);
});

test('does not end while nothing is owed', () => {
  expect(secondsUntilOut(new Patience(), null)).toBeNull();
});

test('begins anew with all that arrives, and when something else is owed', () => {
  const patience = new Patience();
  for (let second = 0; second < PATIENCE_S.reply; second += 1) expect(patience.tick('reply')).toBe(false);
  patience.heard();
  expect(secondsUntilOut(patience, 'reply')).toBe(PATIENCE_S.reply);
  for (let second = 0; second < PATIENCE_S.step; second += 1) expect(patience.tick('step')).toBe(false);
  expect(secondsUntilOut(patience, 'reply')).toBe(PATIENCE_S.reply + 1);
});
