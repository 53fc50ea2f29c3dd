/** What a person can set for the answers; the URL gives the first values. */
export interface Settings {
  readonly temperature: number;
  readonly maxTokens: number;
  readonly seed: number | null;
  /** The system prompt; empty for none. */
  readonly instructions: string;
}

export interface Range {
  readonly min: number;
  readonly max: number;
}

export const TEMPERATURE: Range = { min: 0, max: 2 };
export const MAX_TOKENS: Range = { min: 1, max: 8192 };
export const SEED: Range = { min: 0, max: Number.MAX_SAFE_INTEGER };

export const DEFAULT_SETTINGS: Settings = { temperature: 0, maxTokens: 256, seed: null, instructions: '' };

export function inRange(value: number, range: Range): boolean {
  return value >= range.min && value <= range.max;
}
