/** A person's question, and changing it. */
import type { Chat } from '../chat';
import type { Turn } from '../conversation';
import { isComposing } from './composing';
import { button, element } from './dom';
import { focusMessage } from './focus';
import { iconButton } from './icons';

export function createQuestion(turn: Turn, chat: Chat): HTMLElement {
  const text = element('div', 'text', turn.question);
  text.dir = 'auto';
  const edit = iconButton('edit', 'Edit', () => {
    article.replaceChildren(form());
    article.querySelector('textarea')?.focus();
  });
  const article = element('article', 'question', edit, text);
  article.setAttribute('aria-label', 'You');

  function close(): void {
    article.replaceChildren(edit, text);
  }

  function form(): HTMLFormElement {
    const box = element('textarea', '');
    box.value = turn.question;
    box.dir = 'auto';
    box.rows = Math.min(8, turn.question.split('\n').length + 1);
    box.setAttribute('aria-label', 'Edit your question');
    const cancel = button('button small quiet', 'Cancel', () => {
      close();
      edit.focus();
    });
    const ask = element('button', 'button small strong', 'Ask');
    ask.type = 'submit';
    const node = element('form', 'edit', box, element('div', 'edit-foot', element('span', 'hint', 'The former version is kept.'), cancel, ask));
    node.addEventListener('submit', (event) => {
      event.preventDefault();
      if (box.value.trim() === '') return;
      close();
      if (box.value.trim() !== turn.question) chat.edit(turn.id, box.value);
      focusMessage();
    });
    box.addEventListener('keydown', (event) => {
      if (isComposing(event)) return;
      if (event.key === 'Enter' && !event.shiftKey) {
        event.preventDefault();
        node.requestSubmit();
      } else if (event.key === 'Escape') {
        // It ends the editing, and not an answer that may be under way.
        event.stopPropagation();
        cancel.click();
      }
    });
    return node;
  }

  return article;
}
