/**
 * What the page knows, and how events change it. Pure: no DOM, no clock, no engine.
 * Views are drawn from a `State` and nothing else.
 */
import type { AnswerStats, ChatMessage, EngineEvent, Phase, SplitState, StorageState } from '../api';
import { emptyAnswer, emptyConversation, isOpen, leafBelow, merge, pathOf, together, withTurn, type Answer, type Conversation, type Turn } from './conversation';
import { modelOf, wantedModel } from './models';
import type { Settings } from './settings';

/** What can be done about a notice. */
export interface NoticeAction {
  readonly label: string;
  readonly restore: string;
}

/** A conversation in the list of those that are kept. */
export interface ChatSummary {
  readonly id: string;
  readonly title: string;
}

export interface Notice {
  readonly code: string;
  readonly sentence: string;
  readonly action?: NoticeAction;
  /** Nothing went wrong. */
  readonly good?: boolean;
}

export interface State {
  readonly phase: Phase;
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly blocksReady: number;
  /** Place in the queue of a server that is full, 1 being next; null when it waits for none. */
  readonly place: number | null;
  readonly split: SplitState | null;
  /** What of models is kept in this browser, once it was asked for. */
  readonly storage: StorageState | null;
  readonly conversation: Conversation;
  /** The path through the conversation that is shown. */
  readonly turns: readonly Turn[];
  /** The conversations that are kept, the newest first. */
  readonly chats: readonly ChatSummary[];
  /** A kept conversation is being read, so that none is shown for a moment. */
  readonly opening: boolean;
  /** Highest number given to an ask. It survives a new chat, so that events of an old chat never match a new answer. */
  readonly lastAsk: number;
  readonly lastStats: AnswerStats | null;
  /** The server's models by name, the first of them for who chooses none; empty while they are not known. */
  readonly models: readonly string[];
  readonly notices: readonly Notice[];
  /** Set when the engine cannot go on until it is started again. */
  readonly engineFailure: string | null;
  readonly settings: Settings;
}

export type UserEvent =
  /** A question after `parent`, or as another version of what comes after it. */
  | { readonly type: 'asked'; readonly ask: number; readonly id: string; readonly at: number; readonly parent: string | null; readonly question: string; readonly begin?: string }
  /** The same turn again, in place: nothing of its answer was there yet. */
  | { readonly type: 'asked_again'; readonly ask: number; readonly id: string }
  /** More of an answer that was cut short. */
  | { readonly type: 'continued'; readonly ask: number; readonly id: string }
  | { readonly type: 'stop_pressed' }
  | { readonly type: 'version_chosen'; readonly id: string }
  | { readonly type: 'conversation_opened'; readonly conversation: Conversation }
  /** Another tab has written to this conversation. */
  | { readonly type: 'conversation_merged'; readonly id: string; readonly title: string | null; readonly turns: readonly Turn[] }
  | { readonly type: 'chats_listed'; readonly chats: readonly ChatSummary[] }
  | { readonly type: 'notice_shown'; readonly notice: Notice }
  | { readonly type: 'notice_dismissed'; readonly code: string }
  | { readonly type: 'settings_changed'; readonly settings: Settings }
  | { readonly type: 'models_listed'; readonly models: readonly string[] }
  /** This one shall answer from now on, and in new conversations. */
  | { readonly type: 'model_chosen'; readonly model: string }
  | { readonly type: 'engine_started' };

export type PageEvent = EngineEvent | UserEvent;

export function initialState(settings: Settings, id = '', opening = false): State {
  return {
    phase: 'connecting',
    doneBytes: 0,
    totalBytes: 0,
    blocksReady: 0,
    place: null,
    split: null,
    storage: null,
    conversation: emptyConversation(id),
    turns: [],
    chats: [],
    opening,
    lastAsk: 0,
    lastStats: null,
    models: [],
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
    case 'queued':
      return { ...state, place: event.place };
    case 'split':
      return { ...state, split: event.state };
    case 'storage':
      return { ...state, storage: event.state };
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
        : failAnswer(state, event.ask, event.sentence);
    case 'diagnostics':
      return state;
    case 'asked': {
      const { ask, id, at, parent, question, begin = '' } = event;
      const answer = begin === '' ? emptyAnswer(ask) : { ...emptyAnswer(ask), status: 'streaming' as const, text: begin };
      const conversation = { ...state.conversation, model: wantedModel(state) ?? modelOf(state) };
      return { ...withConversation(state, withTurn(conversation, { id, parent, createdAt: at, question, answer })), lastAsk: ask };
    }
    case 'asked_again':
      return { ...changed(state, event.id, () => emptyAnswer(event.ask)), lastAsk: event.ask };
    case 'continued':
      return { ...changed(state, event.id, (answer) => reopened(answer, event.ask)), lastAsk: event.ask };
    case 'stop_pressed':
      return stop(state);
    case 'version_chosen':
      return withConversation(state, { ...state.conversation, leaf: leafBelow(state.conversation, event.id) });
    case 'conversation_opened':
      return { ...withConversation(state, event.conversation), opening: false, lastStats: null };
    case 'conversation_merged':
      return event.id === state.conversation.id ? withConversation(state, merge(state.conversation, event.turns, event.title)) : state;
    case 'chats_listed':
      return sameChats(state.chats, event.chats) ? state : { ...state, chats: event.chats };
    case 'notice_shown':
      return withNotice(state, event.notice);
    case 'notice_dismissed':
      return { ...state, notices: state.notices.filter((notice) => notice.code !== event.code) };
    case 'settings_changed':
      return { ...state, settings: event.settings };
    case 'models_listed':
      return { ...state, models: event.models };
    case 'model_chosen': {
      // An empty conversation goes by the settings until something is asked in it.
      const conversation = state.turns.length > 0 ? { ...state.conversation, model: event.model } : state.conversation;
      return { ...state, conversation, settings: { ...state.settings, model: event.model } };
    }
    case 'engine_started':
      // The split and the counts belonged to the former engine.
      return { ...state, phase: 'connecting', doneBytes: 0, totalBytes: 0, blocksReady: 0, place: null, split: null, engineFailure: null };
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

function withConversation(state: State, conversation: Conversation): State {
  return { ...state, conversation, turns: pathOf(conversation) };
}

function reopened(answer: Answer, ask: number): Answer {
  return { ...answer, ask, status: 'streaming', finishReason: null, earlier: answer.stats, stats: null, sentence: null };
}

function failed(answer: Answer, sentence: string): Answer {
  return isOpen(answer) ? { ...answer, status: 'failed', sentence } : answer;
}

/** Change the answer of the turn with this id. */
function changed(state: State, id: string, change: (answer: Answer) => Answer): State {
  const { conversation } = state;
  const index = conversation.turns.findIndex((turn) => turn.id === id);
  const turn = conversation.turns[index];
  if (turn === undefined) return state;
  const answer = change(turn.answer);
  if (answer === turn.answer) return state;
  return withConversation(state, { ...conversation, turns: conversation.turns.with(index, { ...turn, answer }) });
}

/** Change the answer with this number; events for an answer that is gone change nothing. */
function withAnswer(state: State, ask: number, change: (answer: Answer) => Answer): State {
  const turn = state.conversation.turns.find(({ answer }) => answer.ask === ask);
  return turn === undefined ? state : changed(state, turn.id, change);
}

function finish(state: State, event: EngineEvent & { type: 'finished' }): State {
  const next = withAnswer(state, event.ask, (answer) => {
    const { finishReason } = event;
    const ending = { finishReason, stats: together(answer.earlier, event.stats), split: state.split };
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
function failAnswer(state: State, ask: number, sentence: string): State {
  const next = withAnswer(state, ask, (answer) => failed(answer, sentence));
  // An answer that was stopped may have been of the engine before this one.
  return next !== state && next.phase === 'connecting' ? { ...next, phase: 'disconnected' } : next;
}

function failOpenAnswer(state: State, sentence: string): State {
  const answer = openAnswer(state);
  return answer === null ? state : withAnswer(state, answer.ask, () => failed(answer, sentence));
}

/** The list is read anew with every write, and most of these change nothing in it. */
function sameChats(some: readonly ChatSummary[], others: readonly ChatSummary[]): boolean {
  return some.length === others.length && some.every(({ id, title }, index) => id === others[index]?.id && title === others[index].title);
}

function withNotice(state: State, notice: Notice): State {
  const index = state.notices.findIndex((known) => known.code === notice.code);
  return { ...state, notices: index < 0 ? [...state.notices, notice] : state.notices.with(index, notice) };
}
