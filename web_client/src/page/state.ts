/**
 * What the page knows, and how events change it. Pure: no DOM, no clock, no engine.
 * Views are drawn from a `State` and nothing else.
 */
import type { AnswerStats, ChatMessage, EngineEvent, FinishReason, Phase, SplitState } from '../api';
import type { Settings } from './settings';

/** `waiting` until the first text, `stopped` when the person cut it short. */
export type AnswerStatus = 'waiting' | 'streaming' | 'finished' | 'stopped' | 'failed';

export interface Answer {
  readonly ask: number;
  readonly status: AnswerStatus;
  readonly text: string;
  readonly finishReason: FinishReason | null;
  readonly stats: AnswerStats | null;
  /** The split in force when the answer ended; the panel may have moved on since. */
  readonly split: SplitState | null;
  /** Why it failed. */
  readonly sentence: string | null;
}

/** One question and its answer; asking again replaces the answer and keeps the turn. */
export interface Turn {
  readonly id: number;
  readonly question: string;
  readonly answer: Answer;
}

export interface Notice {
  readonly code: string;
  readonly sentence: string;
}

export interface State {
  readonly phase: Phase;
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly blocksReady: number;
  readonly split: SplitState | null;
  readonly turns: readonly Turn[];
  /** Highest number given to an ask. It survives a new chat, so that events of an old chat never match a new answer. */
  readonly lastAsk: number;
  readonly lastStats: AnswerStats | null;
  readonly notices: readonly Notice[];
  /** Set when the engine cannot go on until it is started again. */
  readonly engineFailure: string | null;
  readonly settings: Settings;
}

export type UserEvent =
  | { readonly type: 'asked'; readonly ask: number; readonly question: string }
  | { readonly type: 'asked_again'; readonly ask: number }
  | { readonly type: 'stop_pressed' }
  | { readonly type: 'chat_cleared' }
  | { readonly type: 'notice_dismissed'; readonly code: string }
  | { readonly type: 'settings_changed'; readonly settings: Settings }
  | { readonly type: 'engine_started' };

export type PageEvent = EngineEvent | UserEvent;

export function initialState(settings: Settings): State {
  return {
    phase: 'connecting',
    doneBytes: 0,
    totalBytes: 0,
    blocksReady: 0,
    split: null,
    turns: [],
    lastAsk: 0,
    lastStats: null,
    notices: [],
    engineFailure: null,
    settings,
  };
}

export function reduce(state: State, event: PageEvent): State {
  switch (event.type) {
    case 'phase': {
      const { phase, doneBytes, totalBytes, blocksReady } = event;
      return { ...state, phase, doneBytes, totalBytes, blocksReady };
    }
    case 'split':
      return { ...state, split: event.state };
    case 'notice':
      return withNotice(state, { code: event.code, sentence: event.sentence });
    case 'text':
      return withAnswer(state, event.ask, (answer) =>
        isOpen(answer) ? { ...answer, status: 'streaming', text: answer.text + event.text } : answer,
      );
    case 'finished':
      return finish(state, event);
    case 'failed':
      return event.ask === null
        ? { ...failOpenAnswer(state, event.sentence), engineFailure: event.sentence }
        : withAnswer(notConnecting(state), event.ask, (answer) => failed(answer, event.sentence));
    case 'diagnostics':
      return state;
    case 'asked': {
      const turn = { id: event.ask, question: event.question, answer: emptyAnswer(event.ask) };
      return { ...state, turns: [...state.turns, turn], lastAsk: event.ask };
    }
    case 'asked_again': {
      const last = state.turns.at(-1);
      if (last === undefined) return state;
      const again = { ...last, answer: emptyAnswer(event.ask) };
      return { ...state, turns: [...state.turns.slice(0, -1), again], lastAsk: event.ask };
    }
    case 'stop_pressed':
      return stop(state);
    case 'chat_cleared':
      return { ...state, turns: [] };
    case 'notice_dismissed':
      return { ...state, notices: state.notices.filter((notice) => notice.code !== event.code) };
    case 'settings_changed':
      return { ...state, settings: event.settings };
    case 'engine_started':
      // The split and the counts belonged to the former engine.
      return { ...state, phase: 'connecting', doneBytes: 0, totalBytes: 0, blocksReady: 0, split: null, engineFailure: null };
  }
}

/** The answer under way, if there is one. It is always the last. */
export function openAnswer(state: State): Answer | null {
  const answer = state.turns.at(-1)?.answer;
  return answer !== undefined && isOpen(answer) ? answer : null;
}

/**
 * The conversation as the model shall see it, up to the last question. Turns without an answer are left out:
 * chat templates expect user and assistant in turn.
 */
export function messagesFor(state: State): readonly ChatMessage[] {
  const messages: ChatMessage[] = [];
  const instructions = state.settings.instructions.trim();
  if (instructions !== '') messages.push({ role: 'system', content: instructions });
  state.turns.forEach((turn, index) => {
    const isLast = index === state.turns.length - 1;
    if (isLast) {
      messages.push({ role: 'user', content: turn.question });
    } else if (turn.answer.status !== 'failed' && turn.answer.text !== '') {
      messages.push({ role: 'user', content: turn.question }, { role: 'assistant', content: turn.answer.text });
    }
  });
  return messages;
}

function isOpen(answer: Answer): boolean {
  return answer.status === 'waiting' || answer.status === 'streaming';
}

function emptyAnswer(ask: number): Answer {
  return { ask, status: 'waiting', text: '', finishReason: null, stats: null, split: null, sentence: null };
}

function failed(answer: Answer, sentence: string): Answer {
  return isOpen(answer) ? { ...answer, status: 'failed', sentence } : answer;
}

/** Change the answer with this number; events for an answer that is gone change nothing. */
function withAnswer(state: State, ask: number, change: (answer: Answer) => Answer): State {
  const index = state.turns.findIndex((turn) => turn.answer.ask === ask);
  const turn = state.turns[index];
  if (turn === undefined) return state;
  const answer = change(turn.answer);
  return answer === turn.answer ? state : { ...state, turns: state.turns.with(index, { ...turn, answer }) };
}

function finish(state: State, event: EngineEvent & { type: 'finished' }): State {
  const next = withAnswer(state, event.ask, (answer) => {
    const { finishReason, stats } = event;
    const ending = { finishReason, stats, split: state.split };
    if (isOpen(answer)) {
      const status = finishReason === 'cancelled' ? 'stopped' : 'finished';
      return { ...answer, ...ending, status, text: event.text };
    }
    // A stopped answer is closed at once; its figures come later. Its text stays what the person saw when stopping.
    return answer.status === 'stopped' && answer.stats === null ? { ...answer, ...ending, finishReason: 'cancelled' } : answer;
  });
  return next === state ? state : { ...next, lastStats: event.stats.tokens > 0 ? event.stats : state.lastStats };
}

/** Stop is felt at once: the box is free before the engine confirms. */
function stop(state: State): State {
  const answer = openAnswer(state);
  if (answer === null) return state;
  return withAnswer(state, answer.ask, () => ({ ...answer, status: 'stopped', finishReason: 'cancelled' }));
}

/** A question that fails while the engine connects for it failed to connect; nothing goes on until the next one. */
function notConnecting(state: State): State {
  return state.phase === 'connecting' ? { ...state, phase: 'disconnected' } : state;
}

function failOpenAnswer(state: State, sentence: string): State {
  const answer = openAnswer(state);
  return answer === null ? state : withAnswer(state, answer.ask, () => failed(answer, sentence));
}

function withNotice(state: State, notice: Notice): State {
  const index = state.notices.findIndex((known) => known.code === notice.code);
  return { ...state, notices: index < 0 ? [...state.notices, notice] : state.notices.with(index, notice) };
}
