/** What is kept of a conversation: one record for it, and one for each turn, so that two tabs never write the same one. */
import type { Answer, Turn } from '../conversation';

export interface ChatRecord {
  readonly id: string;
  readonly title: string | null;
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

export function turnRecord(chat: string, { id, parent, createdAt, question, answer }: Turn): TurnRecord {
  const { status, text, finishReason, stats, split, sentence } = answer;
  return { id, chat, parent, createdAt, question, answer: { status, text, finishReason, stats, split, sentence } };
}

export function turnOf({ id, parent, createdAt, question, answer }: TurnRecord): Turn {
  return { id, parent, createdAt, question, answer: { ...answer, ask: 0, earlier: null } };
}
