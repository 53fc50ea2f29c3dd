/** The page's beginning: builds store, engine, library and views, and draws at most once a frame. */
import { createEngine, type Diagnostics } from '../client';
import { answeringByLocks } from './answering';
import { createChat } from './chat';
import { addressedChat, followAddress } from './address';
import { newId } from './ids';
import { createLibrary } from './library';
import { listModels } from './models';
import { parseParameters } from './parameters';
import { readSettings, writeSettings } from './storage/preferences';
import { initialState } from './state';
import { ChatDatabase } from './storage/database';
import { createStore } from './store';
import { createChats } from './views/chats';
import { createComposer } from './views/composer';
import { createConversation } from './views/conversation';
import { createDetails } from './views/details';
import { createDeviceStorage } from './views/device_storage';
import { byId } from './views/dom';
import { focusMessage } from './views/focus';
import { createEffort } from './views/effort';
import { createModelPicker } from './views/model_picker';
import { createNotices } from './views/notices';
import { createPause } from './views/pause';
import { createSettingsForm } from './views/settings_form';
import { createSplitPanel } from './views/split_panel';
import { createWelcome } from './views/welcome';

declare global {
  interface Window {
    /** For tests and bug reports: what runs where, and the engine's log. */
    splitllm: { diagnostics(): Promise<Diagnostics> };
  }
}

const { options, settings, notices } = parseParameters(location.search, location.origin, readSettings());
const store = createStore(initialState(settings, newId(), addressedChat() !== null));
// The engine starts first: it connects while the browser opens what it keeps.
const chat = createChat(store, (choices) => createEngine(options.server, { ...options, ...choices }));
const library = createLibrary(store, ChatDatabase.open().catch(() => null), new BroadcastChannel('splitllm-chats'), answeringByLocks(navigator.locks), () => {
  chat.stop();
});

const views = [
  createWelcome(chat),
  createNotices(chat, library),
  createConversation(chat),
  createComposer(chat, () => store.state()),
  createChats(library),
  createSplitPanel(),
  createModelPicker(chat, writeSettings),
  createPause(chat),
  createDeviceStorage(chat, () => store.state().settings, writeSettings),
  createEffort(chat, options, () => store.state(), writeSettings),
];
createSettingsForm(chat, () => store.state().settings, writeSettings);
createDetails(chat, () => store.state());

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
  library.begin();
  byId('message', HTMLTextAreaElement).focus();
});
// A page that is hidden may be gone the next moment, without another word.
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'hidden') void library.flush();
});
addEventListener('pagehide', () => {
  library.goingAway();
});

for (const notice of notices) store.dispatch({ type: 'notice', ...notice });
window.splitllm = { diagnostics: () => chat.diagnostics() };
draw();
focusMessage();
void followAddress(store, library);
void listModels(options.server).then((models) => {
  store.dispatch({ type: 'models_listed', models });
});
