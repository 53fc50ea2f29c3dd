/**
 * A conversation as a tree of turns. Asking again or editing a question adds a turn beside the former one, so nothing is ever
 * overwritten; what is shown is the path to one leaf. Turns that two tabs add merge by their ids. Pure.
 */
import type { AnswerStats, FinishReason, SplitState } from '../api';

/**
 * `waiting` until the first text, `stopped` when it was cut short by the person or by closing the page, `elsewhere` while another
 * tab is answering it.
 */
export type AnswerStatus = 'waiting' | 'streaming' | 'elsewhere' | 'finished' | 'stopped' | 'failed';

export interface Answer {
  /** Number of the ask that this page made for it; 0 for an answer that was read from storage. */
  readonly ask: number;
  readonly status: AnswerStatus;
  readonly text: string;
  readonly finishReason: FinishReason | null;
  readonly stats: AnswerStats | null;
  /** Figures of what was there before the answer was continued. */
  readonly earlier: AnswerStats | null;
  /** The split in force when the answer ended; the panel may have moved on since. */
  readonly split: SplitState | null;
  /** Why it failed. */
  readonly sentence: string | null;
}

/** One question and its answer. */
export interface Turn {
  readonly id: string;
  /** The turn before; null for a first one. */
  readonly parent: string | null;
  /** Milliseconds since 1970. */
  readonly createdAt: number;
  readonly question: string;
  readonly answer: Answer;
}

export interface Conversation {
  readonly id: string;
  /** As a person has named it; null while it is called by its first question. */
  readonly title: string | null;
  /** The server's model that answers in it; null while none has. */
  readonly model: string | null;
  /** In no order; parents and ids make the tree. */
  readonly turns: readonly Turn[];
  /** The last turn of the path that is shown. */
  readonly leaf: string | null;
}

const LONGEST_TITLE = 60;

export function emptyConversation(id: string): Conversation {
  return { id, title: null, model: null, turns: [], leaf: null };
}

export function emptyAnswer(ask: number): Answer {
  return { ask, status: 'waiting', text: '', finishReason: null, stats: null, earlier: null, split: null, sentence: null };
}

/** Under way in this tab. */
export function isOpen(answer: Answer): boolean {
  return answer.status === 'waiting' || answer.status === 'streaming';
}

/** The turns from the first to the leaf. */
export function pathOf({ turns, leaf }: Conversation): readonly Turn[] {
  const byId = new Map(turns.map((turn) => [turn.id, turn]));
  const path: Turn[] = [];
  let next = leaf === null ? undefined : byId.get(leaf);
  while (next !== undefined) {
    path.push(next);
    // Taken out, so that parents that go in a circle come to an end.
    byId.delete(next.id);
    next = next.parent === null ? undefined : byId.get(next.parent);
  }
  return path.reverse();
}

/** The turns that stand at the same place, oldest first, by the turn before them: of all places at once, for each word draws every turn. */
export function versionsAfter({ turns }: Conversation): ReadonlyMap<string | null, readonly Turn[]> {
  const after = new Map<string | null, Turn[]>();
  for (const turn of turns) {
    const versions = after.get(turn.parent);
    if (versions === undefined) after.set(turn.parent, [turn]);
    else versions.push(turn);
  }
  for (const versions of after.values()) versions.sort(byAge);
  return after;
}

/** The end of the newest path that goes through this turn. */
export function leafBelow({ turns }: Conversation, id: string): string {
  const seen = new Set<string>();
  let leaf = id;
  for (;;) {
    seen.add(leaf);
    const next = turns.filter((turn) => turn.parent === leaf && !seen.has(turn.id)).sort(byAge).at(-1);
    if (next === undefined) return leaf;
    leaf = next.id;
  }
}

/** The end of the newest path of all. */
export function newestLeaf(conversation: Conversation): string | null {
  const root = conversation.turns.filter((turn) => turn.parent === null).sort(byAge).at(-1);
  return root === undefined ? null : leafBelow(conversation, root.id);
}

/** Adds a turn and shows it. */
export function withTurn(conversation: Conversation, turn: Turn): Conversation {
  return { ...conversation, turns: [...conversation.turns, turn], leaf: turn.id };
}

/**
 * What another tab has written of this conversation, `asStored`. A turn whose answer was asked for here stays as it is here; of the others
 * the stored word holds. Where the path ended, it goes on with what was added.
 */
export function merge(conversation: Conversation, stored: readonly Turn[], title: string | null): Conversation {
  const mine = new Map(conversation.turns.map((turn) => [turn.id, turn]));
  for (const turn of stored) {
    if ((mine.get(turn.id)?.answer.ask ?? 0) === 0) mine.set(turn.id, turn);
  }
  const merged = { ...conversation, title, turns: [...mine.values()] };
  const last = mine.get(conversation.leaf ?? '');
  // What is being answered here stays the end of what is shown.
  if (last !== undefined && isOpen(last.answer)) return merged;
  return { ...merged, leaf: merged.leaf === null ? newestLeaf(merged) : leafBelow(merged, merged.leaf) };
}

/** A turn as it was read. What was under way when it was written is so in another tab, if that is `answering` it, or was cut short. */
export function asStored(turn: Turn, answering: ReadonlySet<string>): Turn {
  const { answer } = turn;
  const status = isOpen(answer) ? (answering.has(turn.id) ? 'elsewhere' : 'stopped') : answer.status;
  return { ...turn, answer: { ...answer, ask: 0, status } };
}

export function titleOf(title: string | null, firstQuestion: string): string {
  const words = (title ?? firstQuestion).trim().replace(/\s+/g, ' ');
  const characters = Array.from(words);
  return characters.length > LONGEST_TITLE ? `${characters.slice(0, LONGEST_TITLE - 1).join('').trimEnd()}…` : words;
}

/** Figures of an answer that was made in two goes. */
export function together(earlier: AnswerStats | null, stats: AnswerStats): AnswerStats {
  if (earlier === null) return stats;
  const sum = { ...stats, ttftMs: earlier.ttftMs ?? stats.ttftMs, tpotMs: stats.tpotMs ?? earlier.tpotMs };
  return { ...sum, ...added(earlier, stats) };
}

const COUNTED = ['tokens', 'serverBlocksRun', 'serverBlocksSaved', 'serverMsRun', 'serverMsSaved', 'sentBytes', 'receivedBytes'] as const;

function added(one: AnswerStats, other: AnswerStats): Partial<AnswerStats> {
  return Object.fromEntries(COUNTED.map((key) => [key, one[key] + other[key]]));
}

/** What the server did and was spared in this chat, all versions counted; null before the first figures. */
export function serverWork({ turns }: Conversation): { readonly run: number; readonly saved: number } | null {
  const stats = turns.flatMap(({ answer }) => (answer.stats === null ? [] : [answer.stats]));
  if (stats.length === 0) return null;
  const sum = (key: 'serverMsRun' | 'serverMsSaved'): number => stats.reduce((total, each) => total + each[key], 0);
  return { run: sum('serverMsRun'), saved: sum('serverMsSaved') };
}

function byAge(one: Turn, other: Turn): number {
  return one.createdAt - other.createdAt || (one.id < other.id ? -1 : 1);
}
