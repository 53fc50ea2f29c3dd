/** How much of the model this device may be given to run; the planner keeps to it. */
import type { EngineOptions } from '../../api';
import type { Chat } from '../chat';
import type { State } from '../state';
import { effortText } from '../words';
import { byId, setText } from './dom';

export function createEffort(chat: Chat, options: EngineOptions, state: () => State, keep: (settings: State['settings']) => void): (state: State) => void {
  const slider = byId('effort', HTMLInputElement);
  const value = byId('effort-value', HTMLOutputElement);
  const shown = (): number | null => (slider.valueAsNumber >= 1 ? null : slider.valueAsNumber);
  const say = (): void => {
    const text = effortText(shown(), state().split?.blocks ?? null);
    setText(value, text);
    slider.setAttribute('aria-valuetext', text);
  };

  // A split that the address asks for goes before it.
  byId('effort-field', HTMLElement).hidden = options.split !== 'auto' || options.backend === 'none';
  slider.value = String(state().settings.effort ?? 1);
  slider.addEventListener('input', say);
  slider.addEventListener('change', () => {
    const settings = { ...state().settings, effort: shown() };
    chat.configure(settings);
    keep(settings);
  });
  return say;
}
