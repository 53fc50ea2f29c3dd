/** What is kept of a conversation: one record for it, and one for each turn, so that two tabs never write the same one. */
import type { Answer, Conversation, Turn } from '../conversation';

export interface ChatRecord {
  readonly id: string;
  readonly title: string | null;
  /** See `Conversation`; records of before there were several have none. */
  readonly model?: string | null | undefined;
  readonly firstQuestion: string;
  readonly createdAt: number;
  readonly updatedAt: number;
  /** The last turn of the path that was shown last. */
  readonly leaf: string | null;
  /** When it was deleted; it is kept for a while, for those who want it back. */
  readonly deletedAt: number | null;
}

export interface TurnRecord {
  readonly id: string;
  readonly chat: string;
  readonly parent: string | null;
  readonly createdAt: number;
  readonly question: string;
  readonly answer: Omit<Answer, 'ask' | 'earlier'>;
}

/** The record of a conversation that is written at `now`, in milliseconds since 1970. */
export function chatRecord({ id, title, model, turns, leaf }: Conversation, now: number): ChatRecord {
  const createdAt = Math.min(now, ...turns.map((turn) => turn.createdAt));
  return { id, title, model, firstQuestion: turns[0]?.question ?? '', createdAt, updatedAt: now, leaf, deletedAt: null };
}

export function turnRecord(chat: string, { id, parent, createdAt, question, answer }: Turn): TurnRecord {
  const { status, text, finishReason, stats, split, sentence } = answer;
  return { id, chat, parent, createdAt, question, answer: { status, text, finishReason, stats, split, sentence } };
}

export function turnOf({ id, parent, createdAt, question, answer }: TurnRecord): Turn {
  return { id, parent, createdAt, question, answer: { ...answer, ask: 0, earlier: null } };
}
