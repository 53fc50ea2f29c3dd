/** Which of the server's models answers; not shown where there is no choice. */
import type { Chat } from '../chat';
import { modelOf } from '../models';
import type { State } from '../state';
import { byId } from './dom';

export function createModelPicker(chat: Chat, keep: (settings: State['settings']) => void): (state: State) => void {
  const field = byId('model-field', HTMLElement);
  const select = byId('model', HTMLSelectElement);
  let listed: readonly string[] = [];

  select.addEventListener('change', () => {
    keep(chat.chooseModel(select.value));
  });
  return (state) => {
    if (state.models !== listed) {
      listed = state.models;
      select.replaceChildren(...listed.map((name) => new Option(name, name)));
    }
    field.hidden = listed.length < 2;
    const model = modelOf(state);
    if (model !== null && select.value !== model) select.value = model;
  };
}
