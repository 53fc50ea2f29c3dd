/** Chats as a JSON file: what is exported, and what is taken of a file that anyone may have written. Pure. */
import { Validator } from '@cfworker/json-schema';
import type { AnswerStats } from '../../api';
import schema from './archive.schema.json';
import { asStored } from '../conversation';
import type { StoredChat } from './database';
import { turnOf, turnRecord, type TurnRecord } from './records';

const FORMAT = 'splitllm-chats';
const VERSION = 1;
/** Characters; far beyond what a person types in a life. */
const LONGEST_FILE = 100_000_000;
/** An answer that is under way goes into the file as far as it has come. */
const NOBODY: ReadonlySet<string> = new Set();

interface ArchivedTurn extends Omit<TurnRecord, 'chat' | 'answer'> {
  readonly answer: Omit<TurnRecord['answer'], 'split'>;
}

interface ArchivedChat {
  readonly id: string;
  readonly title: string | null;
  readonly model?: string | null | undefined;
  readonly createdAt: number;
  readonly updatedAt: number;
  readonly leaf: string | null;
  readonly turns: readonly ArchivedTurn[];
}

/** A file that is not taken; the message is for the person who chose it. */
export class ArchiveError extends Error {}

export function exportChats(chats: readonly StoredChat[], now: Date): string {
  const archive = { format: FORMAT, version: VERSION, exportedAt: now.toISOString(), chats: chats.filter(({ turns }) => turns.length > 0).map(archived) };
  return `${JSON.stringify(archive, null, 2)}\n`;
}

/** Throws `ArchiveError` with one plain sentence. */
export function importChats(text: string): readonly StoredChat[] {
  if (text.length > LONGEST_FILE) throw new ArchiveError('This file is too large to be chats of SplitLLM; nothing was imported.');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ArchiveError('This file is not JSON; choose a file that was exported here. Nothing was imported.');
  }
  const { format, version } = Object(value) as { format?: unknown; version?: unknown };
  if (format !== FORMAT) throw new ArchiveError('This file does not hold chats of SplitLLM; choose a file that was exported here. Nothing was imported.');
  if (version !== VERSION) throw new ArchiveError('This file was written by another version of SplitLLM, which this page cannot read; nothing was imported.');
  const { valid, errors } = new Validator(schema as object, '2020-12', true).validate(value);
  if (!valid) throw new ArchiveError(`This file is damaged (${errors.at(-1)?.instanceLocation ?? '#'}); nothing was imported.`);
  return (value as { chats: readonly ArchivedChat[] }).chats.map(restored);
}

function archived({ chat, turns }: StoredChat): ArchivedChat {
  const { id, title, model, createdAt, updatedAt, leaf } = chat;
  return {
    id,
    title,
    model,
    createdAt,
    updatedAt,
    leaf,
    turns: parentsFirst(turns).map((record) => {
      const turn = asStored(turnOf(record), NOBODY);
      const { status, text, finishReason, stats, sentence } = turn.answer;
      return { id: turn.id, parent: turn.parent, createdAt: turn.createdAt, question: turn.question, answer: { status, text, finishReason, stats, sentence } };
    }),
  };
}

function parentsFirst(turns: readonly TurnRecord[]): readonly TurnRecord[] {
  const children = new Map<string | null, TurnRecord[]>();
  for (const turn of turns) children.set(turn.parent, [...(children.get(turn.parent) ?? []), turn]);
  const sorted = children.get(null) ?? [];
  // Grows while it is walked through: each turn brings those that follow it.
  for (const turn of sorted) sorted.push(...(children.get(turn.id) ?? []));
  return sorted;
}

/** Field by field: what else a file holds does not come in. */
function restored(chat: ArchivedChat): StoredChat {
  const { id, title, model = null, createdAt, updatedAt, leaf } = chat;
  const ids = new Set<string>();
  const turns = chat.turns.map((turn) => {
    // Parents come first, so that turns can form no circle.
    if (ids.has(turn.id) || (turn.parent !== null && !ids.has(turn.parent))) throw new ArchiveError('This file is damaged (its turns do not follow each other); nothing was imported.');
    ids.add(turn.id);
    const { status, text, finishReason, stats, sentence } = turn.answer;
    const answer = { ask: 0, status, text, finishReason, stats: stats === null ? null : figures(stats), earlier: null, split: null, sentence };
    return turnRecord(id, { id: turn.id, parent: turn.parent, createdAt: turn.createdAt, question: turn.question, answer });
  });
  const firstQuestion = turns[0]?.question ?? '';
  return { chat: { id, title, model, firstQuestion, createdAt, updatedAt, leaf: leaf !== null && ids.has(leaf) ? leaf : null, deletedAt: null }, turns };
}

function figures({ tokens, ttftMs, tpotMs, serverBlocksRun, serverBlocksSaved, serverMsRun, serverMsSaved }: AnswerStats): AnswerStats {
  return { tokens, ttftMs, tpotMs, serverBlocksRun, serverBlocksSaved, serverMsRun, serverMsSaved, browserTpotMs: null, sentBytes: 0, receivedBytes: 0 };
}
