/** What the page adds to blocks of an answer: a head with the language and a copy button on code, a box that scrolls round tables. */
import { element } from '../views/dom';

/** The conversation listens for presses of these; a button that is cloned or patched keeps working. */
export const COPY_CODE = 'copy-code';

export function codeBlock(pre: HTMLPreElement): HTMLElement {
  const code = pre.querySelector('code');
  const language = code?.className.replace(/^language-/, '') ?? '';
  const copy = element('button', `${COPY_CODE} button small quiet`, 'Copy code');
  copy.type = 'button';
  const body = element('pre', '', ...(code === null ? [...pre.childNodes] : [code]));
  body.dir = 'ltr';
  reachable(body, language === '' ? 'Code' : `Code, ${language}`);
  return element('div', 'code', element('div', 'code-head', element('span', 'language', language), copy), body);
}

export function tableBox(table: HTMLTableElement): HTMLElement {
  const box = element('div', 'table-box', table.cloneNode(true));
  reachable(box, 'Table');
  return box;
}

/** What scrolls sideways must be reachable from the keyboard. */
function reachable(node: HTMLElement, label: string): void {
  node.tabIndex = 0;
  node.setAttribute('role', 'group');
  node.setAttribute('aria-label', label);
}
