/** One question and its answer as two articles. */
import type { Chat } from '../chat';
import type { Answer, Turn } from '../state';
import { answerFigures } from '../words';
import { button, element, setText } from './dom';
import { focusMessage } from './focus';

export interface TurnView {
  readonly articles: readonly HTMLElement[];
  update(answer: Answer, isLast: boolean): void;
}

const COPIED_MS = 2000;

export function createTurnView(turn: Turn, chat: Chat): TurnView {
  const question = element('article', 'question', messageText(turn.question));
  question.setAttribute('aria-label', 'You');

  const text = messageText('');
  const dots = element('span', 'dots', element('i', ''), element('i', ''), element('i', ''));
  dots.setAttribute('aria-hidden', 'true');
  const remark = element('p', 'remark');
  const failure = element('p', 'failure');
  const figures = element('p', 'figures');
  const copy = copyButton(() => text.textContent);
  const retry = button('button small', 'Try again', () => {
    chat.retry();
    focusMessage();
  });
  const foot = element('div', 'answer-foot', figures, retry, copy);
  const article = element('article', 'answer', text, dots, remark, failure, foot);
  article.setAttribute('aria-label', 'Assistant');

  let shown: Answer | null = null;

  function update(answer: Answer, isLast: boolean): void {
    const open = answer.status === 'waiting' || answer.status === 'streaming';
    const failed = answer.status === 'failed';
    retry.hidden = !(isLast && (failed || answer.status === 'stopped'));
    if (answer === shown) return;
    const wasOpen = shown === null || shown.status === 'waiting' || shown.status === 'streaming';
    shown = answer;

    article.dataset.status = answer.status;
    dots.hidden = answer.status !== 'waiting';
    if (open) {
      // Words that trickle in would be read out one by one; the whole answer is spoken when it is complete.
      article.setAttribute('aria-busy', 'true');
      text.setAttribute('aria-live', 'off');
      appendTo(text, answer.text);
    } else {
      article.removeAttribute('aria-busy');
      text.removeAttribute('aria-live');
      if (wasOpen) speakWhole(text, answer.text);
    }
    text.hidden = answer.text === '';
    show(remark, open || failed || answer.text !== '' ? '' : emptyRemark(answer));
    show(failure, answer.sentence ?? '');
    const parts = open || failed ? [] : answerFigures(answer);
    figures.replaceChildren(...separated(parts));
    figures.hidden = parts.length === 0;
    copy.hidden = open || answer.text === '' || !canCopy();
    foot.hidden = open;
  }

  return { articles: [question, article], update };
}

function messageText(text: string): HTMLDivElement {
  const node = element('div', 'text', text);
  node.dir = 'auto';
  return node;
}

/** Adds what is new, so that a selection in the text so far survives. */
function appendTo(node: HTMLElement, text: string): void {
  const before = node.textContent;
  if (text.length > before.length && text.startsWith(before)) node.append(text.slice(before.length));
  else setText(node, text);
}

/** A live region speaks of what is added, so the finished text is put in anew once the region is live again. */
function speakWhole(node: HTMLElement, text: string): void {
  setText(node, text);
  requestAnimationFrame(() => {
    node.replaceChildren(text);
  });
}

function emptyRemark(answer: Answer): string {
  return answer.status === 'stopped' ? 'Stopped before the first word.' : 'The model ended its answer without a word.';
}

function show(node: HTMLElement, text: string): void {
  setText(node, text);
  node.hidden = text === '';
}

/** A line may break between the parts, not inside one. */
function separated(parts: readonly string[]): (Node | string)[] {
  return parts.flatMap((part, index) => [...(index === 0 ? [] : [' · ']), element('span', 'part', part)]);
}

function canCopy(): boolean {
  // Absent where the page is neither https nor localhost, whatever the types say.
  return 'clipboard' in navigator;
}

function copyButton(text: () => string): HTMLButtonElement {
  const node = button('button small quiet', 'Copy', () => {
    navigator.clipboard.writeText(text()).then(
      () => {
        flash('Copied');
      },
      () => {
        flash('Not allowed');
      },
    );
  });
  function flash(label: string): void {
    node.textContent = label;
    setTimeout(() => {
      node.textContent = 'Copy';
    }, COPIED_MS);
  }
  return node;
}
