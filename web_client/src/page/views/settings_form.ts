/** The Settings popover. The browser opens and closes it; this file keeps its fields and the state together. */
import type { Chat } from '../chat';
import { inRange, MAX_TOKENS, TEMPERATURE, type Range } from '../settings';
import type { State } from '../state';
import { byId, setText } from './dom';

export function createSettingsForm(chat: Chat, first: State): void {
  const temperature = byId('temperature', HTMLInputElement);
  const temperatureValue = byId('temperature-value', HTMLOutputElement);
  const maxTokens = byId('max-tokens', HTMLInputElement);
  const instructions = byId('instructions', HTMLTextAreaElement);
  let settings = first.settings;

  setRange(temperature, TEMPERATURE);
  setRange(maxTokens, MAX_TOKENS);
  temperature.value = String(settings.temperature);
  maxTokens.value = String(settings.maxTokens);
  instructions.value = settings.instructions;
  setText(temperatureValue, temperature.value);

  temperature.addEventListener('input', () => {
    setText(temperatureValue, temperature.value);
    change({ temperature: temperature.valueAsNumber });
  });
  maxTokens.addEventListener('input', () => {
    const value = maxTokens.valueAsNumber;
    if (Number.isInteger(value) && inRange(value, MAX_TOKENS)) change({ maxTokens: value });
  });
  // What cannot be used is put back, so that the field never says something that does not hold.
  maxTokens.addEventListener('change', () => {
    maxTokens.value = String(settings.maxTokens);
  });
  instructions.addEventListener('input', () => {
    change({ instructions: instructions.value });
  });

  function change(part: Partial<typeof settings>): void {
    settings = { ...settings, ...part };
    chat.configure(settings);
  }
}

function setRange(input: HTMLInputElement, range: Range): void {
  input.min = String(range.min);
  input.max = String(range.max);
}
