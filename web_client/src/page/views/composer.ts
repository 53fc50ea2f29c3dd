/** The message box with Send and Stop. */
import type { Chat } from '../chat';
import { openAnswer, type State } from '../state';
import { isComposing } from './composing';
import { byId } from './dom';
import { focusMessage, hasTouchKeyboard } from './focus';

export function createComposer(chat: Chat, state: () => State): (state: State) => void {
  const form = byId('composer', HTMLFormElement);
  const box = byId('message', HTMLTextAreaElement);
  const sendButton = byId('send', HTMLButtonElement);
  const stopButton = byId('stop', HTMLButtonElement);

  function refresh(): void {
    sendButton.disabled = box.value.trim() === '';
    grow(box);
  }

  function send(): void {
    if (box.value.trim() === '' || openAnswer(state()) !== null) return;
    const question = box.value;
    box.value = '';
    refresh();
    chat.send(question);
    focusMessage();
  }

  function stop(): void {
    chat.stop();
    focusMessage();
  }

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    send();
  });
  box.addEventListener('input', refresh);
  box.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || isComposing(event)) return;
    event.preventDefault();
    send();
  });
  stopButton.addEventListener('click', stop);
  document.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || isComposing(event) || openAnswer(state()) === null) return;
    // Escape first closes what lies on top.
    if (document.querySelector(':popover-open, dialog[open]') !== null) return;
    event.preventDefault();
    stop();
  });
  // The height depends on the width and on the font.
  window.addEventListener('resize', refresh);
  refresh();

  let wasAnswering = false;
  return (now) => {
    const answering = openAnswer(now) !== null;
    if (answering === wasAnswering) return;
    wasAnswering = answering;
    // A button that is hidden while it has the focus would drop it on the floor.
    const focusWasHere = document.activeElement === sendButton || document.activeElement === stopButton;
    sendButton.hidden = answering;
    stopButton.hidden = !answering;
    if (focusWasHere) {
      if (answering && hasTouchKeyboard()) stopButton.focus();
      else focusMessage();
    }
  };
}

/** As high as its text; the style sheet sets the limit. */
function grow(box: HTMLTextAreaElement): void {
  box.style.height = 'auto';
  const border = box.offsetHeight - box.clientHeight;
  box.style.height = `${box.scrollHeight + border}px`;
}
