/** The log of turns, and where it is scrolled to. */
import type { Chat } from '../chat';
import { versionsAfter } from '../conversation';
import type { State } from '../state';
import { listenForCodeCopies } from './copy';
import { byId } from './dom';
import { createTurnView, type TurnView } from './turn';

/** Nearer to the end than this counts as being at the end. */
const NEAR_END_PX = 48;

export function createConversation(chat: Chat): (state: State) => void {
  const log = byId('conversation', HTMLElement);
  const latest = byId('latest', HTMLButtonElement);
  const views = new Map<string, TurnView>();
  let conversation = '';
  let following = true;

  function distanceToEnd(): number {
    return log.scrollHeight - log.scrollTop - log.clientHeight;
  }

  function scrollToEnd(): void {
    log.scrollTop = log.scrollHeight;
  }

  function showLatest(): void {
    latest.hidden = following || distanceToEnd() <= NEAR_END_PX;
  }

  listenForCodeCopies(log);
  log.addEventListener('scroll', () => {
    following = distanceToEnd() <= NEAR_END_PX;
    showLatest();
  });
  latest.addEventListener('click', () => {
    following = true;
    scrollToEnd();
    log.focus({ preventScroll: true });
  });
  // The keyboard of a phone or a growing message box takes room from the log.
  new ResizeObserver(() => {
    if (following) scrollToEnd();
    showLatest();
  }).observe(log);

  return (state) => {
    // Another conversation is read from its end.
    if (state.conversation.id !== conversation) following = true;
    conversation = state.conversation.id;
    // A person who asks wants to see the answer, wherever they had scrolled to.
    if (state.turns.some((turn) => !views.has(turn.id))) following = true;
    const present = new Set(state.turns.map((turn) => turn.id));
    for (const [id, view] of views) {
      if (present.has(id)) continue;
      for (const article of view.articles) article.remove();
      views.delete(id);
    }
    const versions = versionsAfter(state.conversation);
    for (const turn of state.turns) {
      let view = views.get(turn.id);
      if (view === undefined) {
        view = createTurnView(turn, chat);
        views.set(turn.id, view);
        log.append(...view.articles);
      }
      view.update(turn, versions.get(turn.parent) ?? [turn], state);
    }
    // Only a log with something to scroll is worth a stop of the Tab key.
    if (state.turns.length > 0) log.tabIndex = 0;
    else log.removeAttribute('tabindex');
    if (following) scrollToEnd();
    showLatest();
  };
}
