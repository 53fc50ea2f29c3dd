/** What is there before the first question. */
import type { Chat } from '../chat';
import type { State } from '../state';
import { button, byId } from './dom';
import { focusMessage } from './focus';

const EXAMPLES = ['What is the capital of Japan?', 'Tell me a story.', 'What runs in my browser?'];

export function createWelcome(chat: Chat): (state: State) => void {
  const section = byId('welcome', HTMLElement);
  const examples = EXAMPLES.map((example) =>
    button('example', example, () => {
      chat.send(example);
      focusMessage();
    }),
  );
  byId('examples', HTMLElement).append(...examples);
  return (state) => {
    section.hidden = state.turns.length > 0 || state.opening;
  };
}
