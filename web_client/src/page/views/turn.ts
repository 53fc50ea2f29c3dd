/** One question and its answer as two articles. */
import type { Chat } from '../chat';
import { isOpen, type Answer, type Turn } from '../conversation';
import { createMarkdown } from '../markdown/view';
import type { State } from '../state';
import { answerFigures, waitText } from '../words';
import { canCopy, copyButton } from './copy';
import { button, element, setText } from './dom';
import { focusMessage } from './focus';
import { iconButton } from './icons';
import { createQuestion } from './question';
import { createVersions } from './versions';

const SEPARATOR = ' · ';

export interface TurnView {
  readonly articles: readonly HTMLElement[];
  /** `versions` are those of this turn, oldest first. */
  update(turn: Turn, versions: readonly Turn[], state: State): void;
}

export function createTurnView(turn: Turn, chat: Chat): TurnView {
  const markdown = createMarkdown();
  const text = markdown.node;
  const dots = element('span', 'dots', element('i', ''), element('i', ''), element('i', ''));
  dots.setAttribute('aria-hidden', 'true');
  // The Split status says it to those who do not see it.
  const wait = element('span', 'wait');
  wait.setAttribute('aria-hidden', 'true');
  const remark = element('p', 'remark');
  const failure = element('p', 'failure');
  const figures = element('p', 'figures');
  const place = createVersions(chat);
  const copy = copyButton(() => shown?.text ?? '');
  const again = iconButton('again', 'Regenerate', regenerate);
  const retry = button('button small', 'Try again', regenerate);
  const goOn = button('button small', 'Continue', () => {
    chat.goOn();
    focusMessage();
  });
  const foot = element('div', 'answer-foot', figures, element('div', 'actions', place.node, copy, again, goOn, retry));
  const article = element('article', 'answer', text, dots, wait, remark, failure, foot);
  article.setAttribute('aria-label', 'Assistant');

  let shown: Answer | null = null;
  let models: readonly string[] = [];

  function regenerate(): void {
    chat.regenerate(turn.id);
    focusMessage();
  }

  function update({ id, answer }: Turn, versions: readonly Turn[], state: State): void {
    const isLast = state.turns.at(-1)?.id === id;
    const cut = answer.status === 'stopped' || answer.finishReason === 'length';
    const failed = answer.status === 'failed';
    place.update(versions, id);
    goOn.hidden = !(isLast && cut && answer.text !== '');
    retry.hidden = !(isLast && (failed || (cut && answer.text === '')));
    again.hidden = !retry.hidden;
    show(wait, answer.status === 'waiting' ? waitText(state) : '');
    if (answer === shown && state.models === models) return;
    const growing = isGrowing(answer);
    const wasGrowing = shown === null || isGrowing(shown);
    // An answer that was read from storage was spoken when it was given.
    const fresh = answer.ask > 0;
    shown = answer;
    models = state.models;

    article.dataset.status = answer.status;
    dots.hidden = answer.status !== 'waiting';
    if (growing) {
      // Words that trickle in would be read out one by one; the whole answer is spoken when it is complete.
      article.setAttribute('aria-busy', 'true');
      text.setAttribute('aria-live', 'off');
      markdown.update(answer.text, false);
    } else {
      article.removeAttribute('aria-busy');
      text.removeAttribute('aria-live');
      markdown.update(answer.text, true);
      if (wasGrowing && fresh) speakWhole(text);
    }
    text.hidden = answer.text === '';
    show(remark, remarkOn(answer));
    show(failure, answer.sentence ?? '');
    const parts = growing || failed ? [] : answerFigures(answer, state.models);
    // What is put in anew is spoken anew, and another tab's words arrive as new turns all the way up.
    if (figures.textContent !== parts.join(SEPARATOR)) figures.replaceChildren(...separated(parts));
    figures.hidden = parts.length === 0;
    copy.hidden = growing || answer.text === '' || !canCopy();
    foot.hidden = isOpen(answer);
  }

  return { articles: [createQuestion(turn, chat), article], update };
}

/** A live region speaks of what is added, so the finished text is put in anew once the region is live again. */
function speakWhole(node: HTMLElement): void {
  requestAnimationFrame(() => {
    node.replaceChildren(...[...node.childNodes].map((child) => child.cloneNode(true)));
  });
}

function isGrowing(answer: Answer): boolean {
  return isOpen(answer) || answer.status === 'elsewhere';
}

function remarkOn({ status, text }: Answer): string {
  if (status === 'elsewhere') return 'Another tab is answering this.';
  if (text !== '') return '';
  if (status === 'stopped') return 'Stopped before the first word.';
  return status === 'finished' ? 'The model ended its answer without a word.' : '';
}

function show(node: HTMLElement, text: string): void {
  setText(node, text);
  node.hidden = text === '';
}

/** A line may break between the parts, not inside one. */
function separated(parts: readonly string[]): (Node | string)[] {
  return parts.flatMap((part, index) => [...(index === 0 ? [] : [SEPARATOR]), element('span', 'part', part)]);
}
