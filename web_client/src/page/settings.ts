/** What a person can set for the answers; the URL gives the first values. */
export interface Settings {
  readonly temperature: number;
  /** Only the likeliest tokens that together have this much probability are drawn from; 1 for all. */
  readonly topP: number;
  readonly maxTokens: number;
  readonly seed: number | null;
  /** Largest share of the model's blocks that may run on this device, 0 to 1; null for as many as the planner wants. */
  readonly effort: number | null;
  /** Whether verified weights stay in the browser's storage for the next visit. */
  readonly keepWeights: boolean;
  /** No more of the model is downloaded. */
  readonly lessData: boolean;
  /** The server's model that new chats begin with; null for its first. */
  readonly model: string | null;
  /** The system prompt; empty for none. */
  readonly instructions: string;
}

export interface Range {
  readonly min: number;
  readonly max: number;
}

export const TEMPERATURE: Range = { min: 0, max: 2 };
export const TOP_P: Range = { min: 0.05, max: 1 };
export const MAX_TOKENS: Range = { min: 1, max: 8192 };
export const EFFORT: Range = { min: 0, max: 1 };
export const SEED: Range = { min: 0, max: Number.MAX_SAFE_INTEGER };

export const DEFAULT_SETTINGS: Settings = { temperature: 0, topP: 1, maxTokens: 256, seed: null, effort: null, keepWeights: true, lessData: false, model: null, instructions: '' };

export const LONGEST_INSTRUCTIONS = 20_000;

export function inRange(value: number, range: Range): boolean {
  return value >= range.min && value <= range.max;
}

/** Settings as they were kept: each value that cannot be used, whatever wrote it, gives way to the default. */
export function settingsFrom(kept: string | null): Settings {
  let value: Partial<Record<keyof Settings, unknown>>;
  try {
    value = Object(JSON.parse(kept ?? '{}')) as typeof value;
  } catch {
    value = {};
  }
  const { temperature, topP, maxTokens, seed, effort, keepWeights, lessData, model, instructions } = DEFAULT_SETTINGS;
  return {
    temperature: isNumber(value.temperature, TEMPERATURE) ? value.temperature : temperature,
    topP: isNumber(value.topP, TOP_P) ? value.topP : topP,
    maxTokens: isWhole(value.maxTokens, MAX_TOKENS) ? value.maxTokens : maxTokens,
    seed: isWhole(value.seed, SEED) ? value.seed : seed,
    effort: isNumber(value.effort, EFFORT) ? value.effort : effort,
    keepWeights: typeof value.keepWeights === 'boolean' ? value.keepWeights : keepWeights,
    lessData: typeof value.lessData === 'boolean' ? value.lessData : lessData,
    model: typeof value.model === 'string' ? value.model : model,
    instructions: typeof value.instructions === 'string' ? value.instructions.slice(0, LONGEST_INSTRUCTIONS) : instructions,
  };
}

export function isNumber(value: unknown, range: Range): value is number {
  return typeof value === 'number' && inRange(value, range);
}

export function isWhole(value: unknown, range: Range): value is number {
  return isNumber(value, range) && Number.isInteger(value);
}
