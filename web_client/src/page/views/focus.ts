/** Where the focus goes when the control that had it goes away. */
import { byId } from './dom';

/** To the message box; on a phone that would bring up the keyboard and cover the answer, so not there. */
export function focusMessage(): void {
  if (!hasTouchKeyboard()) byId('message', HTMLTextAreaElement).focus({ preventScroll: true });
}

export function hasTouchKeyboard(): boolean {
  return matchMedia('(pointer: coarse)').matches && !matchMedia('(any-pointer: fine)').matches;
}
