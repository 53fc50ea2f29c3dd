// @vitest-environment jsdom
import { expect, it } from 'vitest';
import type { Chat } from '../../src/page/chat';
import { asStored } from '../../src/page/conversation';
import type { Turn } from '../../src/page/conversation';
import { createTurnView } from '../../src/page/views/turn';
import { after, asked, finished } from './fixtures';

it('a turn that another tab has written once more says nothing once more', () => {
  const state = after(asked(1), finished(1, 'Once upon a time.'));
  const [turn] = state.turns as [Turn];
  const view = createTurnView(turn, {} as Chat);
  view.update(turn, [turn], state);
  const figures = view.articles[1]?.querySelector('.figures');
  const said = figures?.firstChild;
  expect(figures?.textContent).toBe('TTFT 240 ms · 14.2 tokens/s · 32 tokens');
  view.update(asStored(turn, new Set()), [turn], state);
  expect(figures?.firstChild).toBe(said);
});
