/** The page's engine without its page, in Node: conversations over links that a test disturbs. */
import type { EngineEvent } from '../../src/api';
import { Engine } from '../../src/worker/engine';

export interface Life {
  readonly url: string;
  readonly split: number;
  readonly questions: readonly string[];
  readonly maxTokens: number;
}

/** Seconds of patience and pauses pass so many times as fast; not the limit for connecting, which a busy machine may need. */
const HASTE = 20;
const LONGEST_MS = 10_000;

/** Only for the engine: what hands arguments to its timer is a library's. */
export function hurry(): void {
  const { setInterval: every, setTimeout: later } = globalThis;
  const hasty = (ms: number, rest: readonly unknown[]): number => (rest.length > 0 || ms > LONGEST_MS ? ms : ms / HASTE);
  Object.assign(globalThis, {
    setInterval: (call: () => void, ms = 0, ...rest: unknown[]) => every(call, hasty(ms, rest), ...rest),
    setTimeout: (call: () => void, ms = 0, ...rest: unknown[]) => later(call, hasty(ms, rest), ...rest),
  });
}

/** All answers of one conversation, or what a person was told in place of one. */
export async function converse({ url, split, questions, maxTokens }: Life): Promise<string[]> {
  let hear: (event: EngineEvent) => void = () => undefined;
  const engine = new Engine({ server: url, split, backend: split === 0 ? 'none' : 'wasm', variant: 'float32', wire: 'float32', effort: null, weights: { keep: false, download: true } }, (event) => {
    hear(event);
  });
  const messages: { role: 'user' | 'assistant'; content: string }[] = [];
  const texts: string[] = [];
  engine.start();
  for (const [ask, content] of questions.entries()) {
    messages.push({ role: 'user', content });
    const answer = new Promise<string>((resolve) => {
      hear = (event) => {
        if (event.type === 'finished' && event.ask === ask) resolve(`${event.finishReason}: ${event.text}`);
        if (event.type === 'failed' && event.ask === ask) resolve(`${event.code}! ${event.sentence}`);
      };
    });
    const sampling = { temperature: 0, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1, seed: null };
    engine.ask({ type: 'ask', ask, messages: [...messages], sampling, maxTokens, stop: [] });
    const text = await answer;
    texts.push(text);
    messages.push({ role: 'assistant', content: text });
  }
  engine.close();
  return texts;
}
