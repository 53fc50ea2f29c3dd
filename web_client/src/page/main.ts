/** The page's beginning: builds store, engine and views, and draws at most once a frame. */
import type { Diagnostics } from '../api';
import { createChat } from './chat';
import { startEngine } from './engine';
import { parseParameters } from './parameters';
import { initialState } from './state';
import { createStore } from './store';
import { createComposer } from './views/composer';
import { createConversation } from './views/conversation';
import { byId } from './views/dom';
import { focusMessage } from './views/focus';
import { createNotices } from './views/notices';
import { createSettingsForm } from './views/settings_form';
import { createSplitPanel } from './views/split_panel';
import { createWelcome } from './views/welcome';

declare global {
  interface Window {
    /** For tests and bug reports: what runs where, and the engine's log. */
    splitllm: { diagnostics(): Promise<Diagnostics> };
  }
}

const { options, settings, notices } = parseParameters(location.search, location.origin);
const store = createStore(initialState(settings));
const chat = createChat(store, options, startEngine);

const views = [
  createWelcome(chat),
  createNotices(chat),
  createConversation(chat),
  createComposer(chat, () => store.state()),
  createSplitPanel(),
];
createSettingsForm(chat, store.state());

let drawing = false;
store.subscribe(() => {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
});

function draw(): void {
  const state = store.state();
  for (const view of views) view(state);
}

byId('new-chat', HTMLButtonElement).addEventListener('click', () => {
  chat.clear();
  byId('message', HTMLTextAreaElement).focus();
});

for (const notice of notices) store.dispatch({ type: 'notice', ...notice });
window.splitllm = { diagnostics: () => chat.diagnostics() };
draw();
focusMessage();
