/** One question and its answer as two articles. */
import type { Chat } from '../chat';
import { createMarkdown } from '../markdown/view';
import type { Answer, Turn } from '../state';
import { answerFigures } from '../words';
import { canCopy, copyButton } from './copy';
import { button, element, setText } from './dom';
import { focusMessage } from './focus';

export interface TurnView {
  readonly articles: readonly HTMLElement[];
  update(answer: Answer, isLast: boolean): void;
}

export function createTurnView(turn: Turn, chat: Chat): TurnView {
  const question = element('article', 'question', messageText(turn.question));
  question.setAttribute('aria-label', 'You');

  const markdown = createMarkdown();
  const text = markdown.node;
  const dots = element('span', 'dots', element('i', ''), element('i', ''), element('i', ''));
  dots.setAttribute('aria-hidden', 'true');
  const remark = element('p', 'remark');
  const failure = element('p', 'failure');
  const figures = element('p', 'figures');
  const copy = copyButton(() => shown?.text ?? '');
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
      markdown.update(answer.text, false);
    } else {
      article.removeAttribute('aria-busy');
      text.removeAttribute('aria-live');
      markdown.update(answer.text, true);
      if (wasOpen) speakWhole(text);
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

/** A live region speaks of what is added, so the finished text is put in anew once the region is live again. */
function speakWhole(node: HTMLElement): void {
  requestAnimationFrame(() => {
    node.replaceChildren(...[...node.childNodes].map((child) => child.cloneNode(true)));
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
