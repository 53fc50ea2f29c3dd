/** Copying to the clipboard, and saying that it was done. */
import { COPY_CODE } from '../markdown/furniture';
import { button } from './dom';

const SAID_MS = 2000;

export function canCopy(): boolean {
  // Absent where the page is neither https nor localhost, whatever the types say.
  return 'clipboard' in navigator;
}

export function copyButton(text: () => string): HTMLButtonElement {
  const node = button('button small quiet', 'Copy', () => {
    copy(text(), node);
  });
  return node;
}

/** Copy buttons on code come and go with the text that arrives, so the log listens for all of them. */
export function listenForCodeCopies(log: HTMLElement): void {
  log.classList.toggle('cannot-copy', !canCopy());
  log.addEventListener('click', ({ target }) => {
    if (!(target instanceof HTMLButtonElement) || !target.classList.contains(COPY_CODE)) return;
    const code = target.closest('.code')?.querySelector('pre')?.textContent ?? '';
    copy(code.replace(/\n$/, ''), target);
  });
}

function copy(text: string, pressed: HTMLButtonElement): void {
  navigator.clipboard.writeText(text).then(
    () => {
      say(pressed, 'Copied');
    },
    () => {
      say(pressed, 'Not allowed');
    },
  );
}

function say(pressed: HTMLButtonElement, label: string): void {
  const before = pressed.classList.contains(COPY_CODE) ? 'Copy code' : 'Copy';
  pressed.textContent = label;
  setTimeout(() => {
    pressed.textContent = before;
  }, SAID_MS);
}
