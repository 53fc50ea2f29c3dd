/** Sentences above the conversation: notices a person can dismiss, and the failure that stops the engine. */
import type { Chat } from '../chat';
import type { Notice, State } from '../state';
import { button, byId, element } from './dom';
import { focusMessage } from './focus';

export function createNotices(chat: Chat): (state: State) => void {
  const region = byId('notices', HTMLElement);
  let shownNotices: readonly Notice[] = [];
  let shownFailure: string | null = null;

  return (state) => {
    const failure = unansweredFailure(state);
    if (state.notices === shownNotices && failure === shownFailure) return;
    shownNotices = state.notices;
    shownFailure = failure;
    const items = state.notices.map((notice) => noticeItem(notice, chat));
    if (failure !== null) items.unshift(failureItem(failure, chat));
    region.replaceChildren(...items);
  };
}

/** The failure of the engine, unless the last answer says it already and offers to try again. */
function unansweredFailure(state: State): string | null {
  const said = state.turns.at(-1)?.answer.sentence;
  return said === state.engineFailure ? null : state.engineFailure;
}

function noticeItem(notice: Notice, chat: Chat): HTMLElement {
  const dismiss = button('button small quiet', 'Dismiss', () => {
    chat.dismiss(notice.code);
    focusMessage();
  });
  return element('div', 'notice', element('p', '', notice.sentence), dismiss);
}

function failureItem(sentence: string, chat: Chat): HTMLElement {
  const reconnect = button('button small', 'Reconnect', () => {
    chat.reconnect();
    focusMessage();
  });
  const item = element('div', 'notice severe', element('p', '', sentence), reconnect);
  item.setAttribute('role', 'alert');
  return item;
}
