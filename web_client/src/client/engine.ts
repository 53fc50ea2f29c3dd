/** The engine as a page has it: answers that can be iterated, over the messages of src/api.ts. */
import type { AnswerStats, ChatMessage, Command, Diagnostics, EngineEvent, EngineOptions, FinishReason, Sampling, WeightChoice } from '../api';
import { RuntimeError, SplitLLMError } from '../protocol/errors';
import { Mailbox } from '../session/mailbox';

/** What the engine says that belongs to no answer; `failed` means that it cannot go on until another one is created. */
export type EngineNews = Exclude<EngineEvent, { readonly type: 'text' | 'finished' | 'diagnostics' }>;

export interface AnswerOptions {
  /** Ends the answer, here and on the server. That is no failure: the iteration ends, and the result says `cancelled`. */
  readonly signal?: AbortSignal;
  /** 0 to 2; 0, the default, always takes the likeliest token. What else is left out changes nothing. */
  readonly sampling?: Partial<Sampling>;
  /** Tokens; 256 unless told otherwise. */
  readonly maxTokens?: number;
  /** Texts that end the answer and are cut off: at most 8, of 200 characters. */
  readonly stop?: readonly string[];
  /** What the answer begins with already, when one that was cut short goes on. */
  readonly begin?: string;
}

export interface AnswerResult {
  /** All of it, with what it began with; a stop string is cut off. */
  readonly text: string;
  readonly finishReason: FinishReason;
  readonly stats: AnswerStats;
}

/** Iterate over it for the text piece by piece, once; to leave the loop early stops the answer. Both ways of it may be used alone. */
export interface Answer extends AsyncIterable<string> {
  /** Rejects, as the iteration does, with a `SplitLLMError` whose message is for people. */
  readonly result: Promise<AnswerResult>;
}

export interface Engine {
  /** Answers a conversation, or a single question. May be called at once: it waits for the connection, and for the answer before. */
  answer(messages: string | readonly ChatMessage[], options?: AnswerOptions): Answer;
  /** Returns what ends the listening. */
  listen(listener: (news: EngineNews) => void): () => void;
  /** Another `EngineOptions.effort`; it holds once no answer is under way. */
  setEffort(effort: number | null): void;
  /** Another `EngineOptions.weights`; it holds at once. */
  setWeights(weights: WeightChoice): void;
  /** News of type `storage` follows. */
  askStorage(): void;
  /** Remove all weights that are kept; what runs goes on, from memory. News of type `storage` follows. */
  clearStorage(): void;
  diagnostics(): Promise<Diagnostics>;
  /** Ends everything: connection, worker, and answers under way, which reject with `closed`. */
  close(): void;
}

/**
 * Where the engine runs: a worker in the product, memory in tests.
 * @internal
 */
export interface EnginePort {
  post(command: Command): void;
  /** Nothing comes after `died`. */
  listen(listener: (event: EngineEvent) => void, died: (error: SplitLLMError) => void): void;
  /** No event follows. */
  close(): void;
}

interface OpenAnswer {
  /** Null after the last piece. */
  readonly pieces: Mailbox<string | null>;
  resolve(result: AnswerResult): void;
  reject(error: SplitLLMError): void;
}

const PLAIN: Sampling = { temperature: 0, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1, seed: null };
const MAX_TOKENS = 256;
const DIAGNOSTICS_TIMEOUT_MS = 10_000;

/** @internal */
export function engineOver(port: EnginePort, options: EngineOptions): Engine {
  const listeners = new Set<(news: EngineNews) => void>();
  const answers = new Map<number, OpenAnswer>();
  let diagnosed: ((diagnostics: Diagnostics) => void)[] = [];
  let lastAsk = 0;
  let ended: SplitLLMError | null = null;

  function tell(news: EngineNews): void {
    for (const listener of listeners) listener(news);
  }

  function fail(ask: number, error: SplitLLMError): void {
    answers.get(ask)?.reject(error);
    answers.delete(ask);
  }

  function end(error: SplitLLMError): void {
    ended ??= error;
    for (const ask of [...answers.keys()]) fail(ask, error);
  }

  port.listen(
    (event) => {
      switch (event.type) {
        case 'text':
          answers.get(event.ask)?.pieces.put(event.text);
          return;
        case 'finished': {
          const { text, finishReason, stats } = event;
          answers.get(event.ask)?.resolve({ text, finishReason, stats });
          answers.delete(event.ask);
          return;
        }
        case 'failed':
          if (event.ask === null) tell(event);
          else fail(event.ask, new SplitLLMError(event.code, event.sentence));
          return;
        case 'diagnostics':
          for (const resolve of diagnosed) resolve(event.diagnostics);
          diagnosed = [];
          return;
        case 'phase':
        case 'queued':
        case 'split':
        case 'storage':
        case 'notice':
          tell(event);
      }
    },
    (error) => {
      end(error);
      tell({ type: 'failed', ask: null, code: error.code, sentence: error.message });
    },
  );
  port.post({ type: 'connect', options });

  function stop(ask: number): void {
    if (answers.has(ask)) port.post({ type: 'stop', ask });
  }

  return {
    answer(messages, { signal, sampling, maxTokens = MAX_TOKENS, stop: stops = [], begin = '' } = {}) {
      const ask = (lastAsk += 1);
      const pieces = new Mailbox<string | null>();
      const result = new Promise<AnswerResult>((resolve, reject) => {
        answers.set(ask, {
          pieces,
          resolve(whole) {
            pieces.put(null);
            resolve(whole);
          },
          reject(error) {
            pieces.fail(error);
            reject(error);
          },
        });
      });
      // Who only iterates hears of a failure there.
      result.catch(() => undefined);
      const conversation = typeof messages === 'string' ? [{ role: 'user' as const, content: messages }] : messages;
      if (ended === null) port.post({ type: 'ask', ask, messages: conversation, begin, sampling: { ...PLAIN, ...sampling }, maxTokens, stop: stops });
      else fail(ask, ended);
      const abort = (): void => {
        stop(ask);
      };
      if (signal?.aborted === true) abort();
      signal?.addEventListener('abort', abort);
      const over = (): void => {
        signal?.removeEventListener('abort', abort);
      };
      result.then(over, over);
      const iterator = until(pieces, abort);
      return { result, [Symbol.asyncIterator]: () => iterator };
    },
    listen(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    setEffort(effort) {
      port.post({ type: 'effort', effort });
    },
    setWeights(weights) {
      port.post({ type: 'weights', weights });
    },
    askStorage() {
      port.post({ type: 'storage' });
    },
    clearStorage() {
      port.post({ type: 'clear_storage' });
    },
    diagnostics() {
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          reject(new RuntimeError('silent', 'The engine did not answer within 10 seconds; reload the page.'));
        }, DIAGNOSTICS_TIMEOUT_MS);
        diagnosed.push((diagnostics) => {
          clearTimeout(timer);
          resolve(diagnostics);
        });
        port.post({ type: 'diagnose' });
      });
    },
    close() {
      port.close();
      end(new RuntimeError('closed', 'The engine was closed; create another one.'));
    },
  };
}

/** The pieces up to the end. `leave` is called at the end, wherever it comes. */
async function* until(pieces: Mailbox<string | null>, leave: () => void): AsyncGenerator<string, void> {
  try {
    for (;;) {
      const piece = await pieces.next();
      if (piece === null) return;
      yield piece;
    }
  } finally {
    leave();
  }
}
