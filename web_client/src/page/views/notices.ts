/** Sentences above the conversation: notices a person can dismiss, and the failure that stops the engine. */
import type { Chat } from '../chat';
import type { Library } from '../library';
import type { Notice, State } from '../state';
import { button, byId, element } from './dom';
import { focusMessage } from './focus';

export function createNotices(chat: Chat, library: Library): (state: State) => void {
  const region = byId('notices', HTMLElement);
  let shownNotices: readonly Notice[] = [];
  let shownFailure: string | null = null;

  return (state) => {
    const failure = unansweredFailure(state);
    if (state.notices === shownNotices && failure === shownFailure) return;
    shownNotices = state.notices;
    shownFailure = failure;
    const items = state.notices.map((notice) => noticeItem(notice, chat, library));
    if (failure !== null) items.unshift(failureItem(failure, chat));
    region.replaceChildren(...items);
  };
}

/** The failure of the engine, unless the last answer says it already and offers to try again. */
function unansweredFailure(state: State): string | null {
  const said = state.turns.at(-1)?.answer.sentence;
  return said === state.engineFailure ? null : state.engineFailure;
}

function noticeItem(notice: Notice, chat: Chat, library: Library): HTMLElement {
  const dismiss = button('button small quiet', 'Dismiss', () => {
    chat.dismiss(notice.code);
    focusMessage();
  });
  const { action } = notice;
  const act = action === undefined ? [] : [button('button small', action.label, () => void library.restore(action.restore).then(focusMessage))];
  return element('div', notice.good === true ? 'notice good' : 'notice', element('p', '', notice.sentence), ...act, dismiss);
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
