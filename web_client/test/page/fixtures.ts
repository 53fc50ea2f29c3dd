import type { AnswerStats, EngineEvent, SplitState } from '../../src/api';
import { DEFAULT_SETTINGS } from '../../src/page/settings';
import type { Answer } from '../../src/page/conversation';
import { initialState, reduce, type PageEvent, type State } from '../../src/page/state';

export const STATS: AnswerStats = { tokens: 32, ttftMs: 240, tpotMs: 70.4, serverBlocksRun: 96, serverBlocksSaved: 160, serverMsRun: 300, serverMsSaved: 200, browserTpotMs: 20, sentBytes: 9000, receivedBytes: 1000 };

export function splitState(split: number, blocks = 8): SplitState {
  return {
    model: 'tiny-chat',
    split,
    blocks,
    backend: 'webgpu',
    variant: 'int4',
    wire: 'float16',
    reason: 'One block more would be too slow.',
    feasible: true,
    savedBlockSteps: split / blocks,
    savedServerTime: split / blocks / 2,
    rttMs: 3,
    predictedTtftMs: 300,
    predictedTpotMs: 70,
  };
}

export function after(...events: readonly PageEvent[]): State {
  return events.reduce(reduce, initialState(DEFAULT_SETTINGS));
}

/** Turn `t<ask>`, after the turn of the ask before it. */
export function asked(ask: number, question = 'Hello?', parent = ask > 1 ? `t${String(ask - 1)}` : null): PageEvent {
  return { type: 'asked', ask, id: `t${String(ask)}`, at: ask, parent, question };
}

export function text(ask: number, words: string): EngineEvent {
  return { type: 'text', ask, text: words };
}

export function finished(ask: number, words: string, finishReason: 'stop' | 'length' | 'cancelled' = 'stop', stats = STATS): EngineEvent {
  return { type: 'finished', ask, text: words, finishReason, stats };
}

export function failure(ask: number | null, sentence = 'It broke.'): EngineEvent {
  return { type: 'failed', ask, code: 'broken', sentence };
}

export function lastAnswer(state: State): Answer {
  const answer = state.turns.at(-1)?.answer;
  if (answer === undefined) throw new Error('no turn');
  return answer;
}
