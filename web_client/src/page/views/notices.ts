/** Sentences above the conversation: notices a person can dismiss, and the failure that stops the engine. */
import type { Chat } from '../chat';
import type { Library } from '../library';
import type { Notice, State } from '../state';
import { button, byId, element } from './dom';
import { focusMessage } from './focus';

/** What the engine says before it downloads much, or asks whether it may. */
const BIG_DOWNLOAD = 'big_download';

export function createNotices(chat: Chat, library: Library): (state: State) => void {
  const region = byId('notices', HTMLElement);
  let shownNotices: readonly Notice[] = [];
  let shownFailure: string | null = null;

  return (state) => {
    const failure = unansweredFailure(state);
    if (state.notices !== shownNotices || failure !== shownFailure) draw(state, failure);
    // Hidden, not put in anew: what is new in this region is spoken.
    for (const download of region.querySelectorAll<HTMLButtonElement>('.download')) download.hidden = state.phase !== 'paused';
  };

  function draw(state: State, failure: string | null): void {
    shownNotices = state.notices;
    shownFailure = failure;
    const items = state.notices.map((notice) => noticeItem(notice, chat, library));
    if (failure !== null) items.unshift(failureItem(failure, chat));
    region.replaceChildren(...items);
  }
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
  const { action, code } = notice;
  const act = action === undefined ? [] : [button('button small', action.label, () => void library.restore(action.restore).then(focusMessage))];
  const isDownload = code === BIG_DOWNLOAD;
  if (isDownload) {
    const download = button('button small strong download', 'Download', () => {
      chat.allowDownloads(true);
      focusMessage();
    });
    act.push(download);
  }
  return element('div', notice.good === true || isDownload ? 'notice good' : 'notice', element('p', '', notice.sentence), element('div', 'notice-actions', ...act, dismiss));
}

function failureItem(sentence: string, chat: Chat): HTMLElement {
  const reconnect = button('button small', 'Reconnect', () => {
    chat.reconnect();
    focusMessage();
  });
  const item = element('div', 'notice severe', element('p', '', sentence), element('div', 'notice-actions', reconnect));
  item.setAttribute('role', 'alert');
  return item;
}
