/** The button beside the download's progress: pause it, and go on. */
import type { Chat } from '../chat';
import type { State } from '../state';
import { isArriving } from '../words';
import { byId, setText } from './dom';

export function createPause(chat: Chat): (state: State) => void {
  const pause = byId('split-pause', HTMLButtonElement);
  let paused = false;
  pause.addEventListener('click', () => {
    chat.allowDownloads(paused);
  });
  return (state) => {
    paused = state.phase === 'paused';
    pause.hidden = state.engineFailure !== null || !isArriving(state);
    setText(pause, paused ? 'Resume' : 'Pause');
    pause.setAttribute('aria-label', paused ? 'Resume the download' : 'Pause the download');
  };
}
