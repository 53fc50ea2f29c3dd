/** Options from the page's URL. A bad value never stops the page: it becomes a notice, and the default is used. */
import type { Backend, EngineOptions, Variant, Wire } from '../api';
import { DEFAULT_SETTINGS, inRange, MAX_TOKENS, SEED, TEMPERATURE, type Settings } from './settings';
import type { Notice } from './state';

export interface Parameters {
  readonly options: EngineOptions;
  readonly settings: Settings;
  readonly notices: readonly Notice[];
}

const BACKENDS: readonly Backend[] = ['webgpu', 'wasm', 'none'];
const VARIANTS: readonly Variant[] = ['float32', 'float16', 'int8', 'int4', 'int4f16'];
const WIRES: readonly Wire[] = ['float16', 'float32'];
/** Far beyond any model's number of blocks; the engine knows the true one. */
const MAX_SPLIT = 999;
/** A notice quotes the value; a link must not be able to fill the page with it. */
const QUOTED_CHARACTERS = 40;

/** Reads one value: the value, or undefined if the text means none. */
interface Rule<T> {
  readonly fallback: T;
  readonly allowed: string;
  readonly read: (text: string) => T | undefined;
}

/** `kept` are the settings of the last visit; the address goes before them. */
export function parseParameters(search: string, origin: string, kept: Settings = DEFAULT_SETTINGS): Parameters {
  const query = new URLSearchParams(search);
  const notices: Notice[] = [];

  function take<T>(name: string, rule: Rule<T>): T {
    const text = query.get(name);
    if (text === null) return rule.fallback;
    const value = rule.read(text.trim());
    if (value !== undefined) return value;
    notices.push({ code: `parameter_${name}`, sentence: refusal(name, text, rule) });
    return rule.fallback;
  }

  const auto = 'auto' as const;
  const options: EngineOptions = {
    server: origin,
    split: take('split', {
      fallback: auto,
      allowed: 'auto or a whole number from 0',
      read: (text) => (text === auto ? auto : wholeNumber(text, { min: 0, max: MAX_SPLIT })),
    }),
    backend: take('backend', oneOf(auto, [auto, ...BACKENDS])),
    variant: take('variant', oneOf(auto, [auto, ...VARIANTS])),
    wire: take('wire', oneOf('float16', WIRES)),
    effort: take<number | null>('effort', { fallback: kept.effort, allowed: 'a share from 0 to 1', read: share }),
  };
  const settings: Settings = {
    ...kept,
    effort: options.effort,
    temperature: take('temperature', {
      fallback: kept.temperature,
      allowed: `a number from ${String(TEMPERATURE.min)} to ${String(TEMPERATURE.max)}`,
      read: temperature,
    }),
    seed: take<number | null>('seed', {
      fallback: kept.seed,
      allowed: 'a whole number from 0',
      read: (text) => wholeNumber(text, SEED),
    }),
    maxTokens: take('max_tokens', {
      fallback: kept.maxTokens,
      allowed: `a whole number from ${String(MAX_TOKENS.min)} to ${String(MAX_TOKENS.max)}`,
      read: (text) => wholeNumber(text, MAX_TOKENS),
    }),
  };
  return { options, settings, notices };
}

function oneOf<T extends string>(fallback: T, values: readonly T[]): Rule<T> {
  return {
    fallback,
    allowed: `${values.slice(0, -1).join(', ')} or ${values.at(-1) ?? fallback}`,
    read: (text) => values.find((value) => value === text),
  };
}

function wholeNumber(text: string, range: { min: number; max: number }): number | undefined {
  if (!/^\d+$/.test(text)) return undefined;
  const value = Number(text);
  return inRange(value, range) ? value : undefined;
}

function share(text: string): number | undefined {
  const value = decimal(text);
  return value === undefined || value > 1 ? undefined : value;
}

function temperature(text: string): number | undefined {
  const value = decimal(text);
  return value !== undefined && inRange(value, TEMPERATURE) ? value : undefined;
}

function decimal(text: string): number | undefined {
  // Number() alone would read '' as 0 and '0x1' as 1.
  return /^(\d+\.?\d*|\.\d+)$/.test(text) ? Number(text) : undefined;
}

function refusal<T>(name: string, text: string, rule: Rule<T>): string {
  const quoted = text.length > QUOTED_CHARACTERS ? `${text.slice(0, QUOTED_CHARACTERS)}…` : text;
  const used = rule.fallback === null ? 'No value' : String(rule.fallback);
  return `The address asks for ${name}=${quoted}, which is not possible. Allowed: ${rule.allowed}. ${used} is used instead.`;
}
