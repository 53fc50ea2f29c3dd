/** The Settings dialog: keeps its fields, the state and the browser's storage together. */
import type { Chat } from '../chat';
import { DEFAULT_SETTINGS, isWhole, LONGEST_INSTRUCTIONS, MAX_TOKENS, SEED, TEMPERATURE, TOP_P, type Range, type Settings } from '../settings';
import { byId, setText } from './dom';

export function createSettingsForm(chat: Chat, held: () => Settings, keep: (settings: Settings) => void): void {
  const dialog = byId('settings', HTMLDialogElement);
  const temperature = byId('temperature', HTMLInputElement);
  const topP = byId('top-p', HTMLInputElement);
  const maxTokens = byId('max-tokens', HTMLInputElement);
  const maxTokensHint = byId('max-tokens-hint', HTMLElement);
  const seed = byId('seed', HTMLInputElement);
  const seedHint = byId('seed-hint', HTMLElement);
  const instructions = byId('instructions', HTMLTextAreaElement);
  const seedExplained = seedHint.textContent;
  const tokensExplained = `In tokens, ${String(MAX_TOKENS.min)} to ${String(MAX_TOKENS.max)}; one is about a short word.`;

  setRange(temperature, TEMPERATURE);
  setRange(topP, TOP_P);
  setRange(maxTokens, MAX_TOKENS);
  setRange(seed, SEED);
  instructions.maxLength = LONGEST_INSTRUCTIONS;
  fill();

  temperature.addEventListener('input', () => {
    change({ temperature: temperature.valueAsNumber });
  });
  topP.addEventListener('input', () => {
    change({ topP: topP.valueAsNumber });
  });
  maxTokens.addEventListener('input', () => {
    const value = maxTokens.valueAsNumber;
    const valid = isWhole(value, MAX_TOKENS);
    say(maxTokens, maxTokensHint, valid, tokensExplained, `A whole number from ${String(MAX_TOKENS.min)} to ${String(MAX_TOKENS.max)}, please.`);
    if (valid) change({ maxTokens: value });
  });
  seed.addEventListener('input', () => {
    const empty = seed.value === '' && !seed.validity.badInput;
    const value = seed.valueAsNumber;
    const valid = empty || isWhole(value, SEED);
    say(seed, seedHint, valid, seedExplained, 'A whole number from 0, or nothing, please.');
    if (valid) change({ seed: empty ? null : value });
  });
  instructions.addEventListener('input', () => {
    change({ instructions: instructions.value });
  });
  byId('settings-reset', HTMLButtonElement).addEventListener('click', () => {
    // What this device gives and keeps is no setting of answers.
    const { effort, keepWeights, lessData, model } = held();
    change({ ...DEFAULT_SETTINGS, effort, keepWeights, lessData, model });
    fill();
  });
  byId('settings-button', HTMLButtonElement).addEventListener('click', () => {
    fill();
    dialog.showModal();
  });
  // A value that cannot be used was never taken, so the dialog closes whatever stands in a field.
  dialog.querySelector('form')?.setAttribute('novalidate', '');

  /** The fields say what holds. */
  function fill(): void {
    temperature.value = String(held().temperature);
    topP.value = String(held().topP);
    maxTokens.value = String(held().maxTokens);
    seed.value = held().seed === null ? '' : String(held().seed);
    instructions.value = held().instructions;
    say(maxTokens, maxTokensHint, true, tokensExplained, '');
    say(seed, seedHint, true, seedExplained, '');
    showValues();
  }

  function showValues(): void {
    setText(byId('temperature-value', HTMLOutputElement), String(held().temperature));
    setText(byId('top-p-value', HTMLOutputElement), String(held().topP));
  }

  function change(part: Partial<Settings>): void {
    const settings = { ...held(), ...part };
    chat.configure(settings);
    keep(settings);
    showValues();
  }
}

/** Under a field stands what it is for, or what is wrong with it. */
function say(input: HTMLInputElement, hint: HTMLElement, valid: boolean, explained: string, wrong: string): void {
  input.setAttribute('aria-invalid', String(!valid));
  hint.classList.toggle('wrong', !valid);
  setText(hint, valid ? explained : wrong);
}

function setRange(input: HTMLInputElement, range: Range): void {
  input.min = String(range.min);
  input.max = String(range.max);
}
