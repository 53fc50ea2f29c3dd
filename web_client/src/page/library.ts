/**
 * The conversations that this browser keeps: opens, names, deletes, exports and imports them, and writes the open one as it grows.
 * Every turn is a record of its own, written only by the page that asked for it; tabs tell each other what they wrote.
 */
import type { Answering } from './answering';
import { asStored, emptyConversation, isOpen, leafBelow, newestLeaf, titleOf, type Conversation, type Turn } from './conversation';
import { newId } from './ids';
import type { ChatDatabase, StoredChat } from './storage/database';
import { chatRecord, turnOf, turnRecord, type ChatRecord } from './storage/records';
import { leaveLastWords, takeLastWords } from './storage/reload';
import type { Store } from './store';

export interface Library {
  /** A new, empty conversation. */
  begin(): void;
  open(id: string): Promise<void>;
  rename(id: string, title: string): Promise<void>;
  /** Hides it; it can be had back for a while. */
  remove(id: string): Promise<void>;
  restore(id: string): Promise<void>;
  /** One conversation, or all of them, as the text of a file. */
  exported(id: string | null): Promise<string>;
  /** Takes in a file; tells the person what came of it. */
  take(text: string): Promise<void>;
  /** Reads the list anew. */
  refreshList(): Promise<void>;
  /** Writes what is not written yet. */
  flush(): Promise<void>;
  /** The page goes away, and there may be no later. */
  goingAway(): void;
}

/** What tabs tell each other: the conversation that was written. A `BroadcastChannel` is one. */
export interface Tabs {
  postMessage(id: string): void;
  addEventListener(type: 'message', listener: (event: { readonly data: unknown }) => void): void;
}

const SAVE_EVERY_MS = 250;
const KEPT_AFTER_DELETION_MS = 10 * 60_000;
const LONGEST_NAME = 200;

export function createLibrary(
  store: Store,
  opening: Promise<ChatDatabase | null>,
  tabs: Tabs,
  answering: Answering,
  stop: () => void,
  now: () => number = Date.now,
): Library {
  /** Turns as they were last written, or read. */
  let written = new Map<string, Turn>();
  let writtenLeaf: string | null = null;
  let writtenModel: string | null = null;
  /** Those of this page that have reached the database, as they are there. */
  const safe = new WeakSet<Turn>();
  let writing: Promise<void> = Promise.resolve();
  let timer: ReturnType<typeof setTimeout> | null = null;
  let failed = false;
  /** What lets go of the turns that are answered here, by turn. */
  const held = new Map<string, () => void>();
  /** The turns of other tabs whose end is waited for. */
  const awaited = new Set<string>();
  /** Null until it is open, and where there is none. */
  let database: ChatDatabase | null = null;

  function tell(code: string, sentence: string, good = false): void {
    store.dispatch({ type: 'notice_shown', notice: { code, sentence, good } });
  }

  async function list(): Promise<void> {
    await opened;
    const chats = (await database?.list()) ?? [];
    store.dispatch({ type: 'chats_listed', chats: chats.map(({ id, title, firstQuestion }) => ({ id, title: titleOf(title, firstQuestion) })) });
  }

  function changedTurns({ turns }: Conversation): readonly Turn[] {
    return turns.filter((turn) => turn.answer.ask > 0 && written.get(turn.id) !== turn);
  }

  /** Something of the record that stands beside the turns. */
  function headChanged({ leaf, model }: Conversation): boolean {
    return leaf !== writtenLeaf || model !== writtenModel;
  }

  async function write(): Promise<void> {
    const { conversation } = store.state();
    const turns = changedTurns(conversation);
    if (database === null || (turns.length === 0 && !headChanged(conversation))) return;
    const { id, leaf } = conversation;
    for (const turn of turns) written.set(turn.id, turn);
    writtenLeaf = leaf;
    writtenModel = conversation.model;
    for (const turn of turns) if (isOpen(turn.answer) && !held.has(turn.id)) held.set(turn.id, answering.hold(turn.id));
    try {
      await database.save(chatRecord(conversation, now()), turns.map((turn) => turnRecord(id, turn)));
      for (const turn of turns) safe.add(turn);
      tabs.postMessage(id);
      await list();
    } catch (error) {
      if (failed) return;
      failed = true;
      tell('not_kept', `This browser could not keep your chat (${error instanceof Error ? error.name : 'unknown reason'}); it is here until you close the page. Export it if you need it.`);
    } finally {
      // Not before its end is written: who waits for that reads it then.
      for (const turn of turns) if (!isOpen(turn.answer)) letGo(turn.id);
    }
  }

  function letGo(turn: string): void {
    held.get(turn)?.();
    held.delete(turn);
  }

  function flush(): Promise<void> {
    if (timer !== null) clearTimeout(timer);
    timer = null;
    // The first of them begins at once, also when the page is going away.
    writing = Promise.all([writing, write()]).then(() => undefined);
    return writing;
  }

  store.subscribe(() => {
    const { conversation } = store.state();
    const turns = changedTurns(conversation);
    if (database !== null && turns.some((turn) => !written.has(turn.id))) void flush();
    else if (timer === null && (headChanged(conversation) || turns.length > 0)) timer = setTimeout(() => void opened.then(flush), SAVE_EVERY_MS);
  });

  tabs.addEventListener('message', ({ data }) => {
    void list();
    if (typeof data === 'string' && data === store.state().conversation.id) void refresh(data);
  });

  async function refresh(id: string): Promise<void> {
    await opened;
    const stored = await read(id);
    if (stored === null || store.state().conversation.id !== id) return;
    if (stored.chat.deletedAt !== null) {
      await leave();
      offerBack(stored.chat, 'was deleted in another tab');
      return;
    }
    store.dispatch({ type: 'conversation_merged', id, title: stored.chat.title, turns: stored.turns });
  }

  /** What is kept of a chat. It is read again when another tab has come to the end of an answer, or has gone. */
  async function read(id: string): Promise<{ readonly chat: ChatRecord; readonly turns: readonly Turn[] } | null> {
    // Asked for first: an answer that ends meanwhile is read with its end.
    const answered = await answering.now();
    const stored = (await database?.read(id)) ?? null;
    if (stored === null) return null;
    const turns = stored.turns.map((record) => asStored(turnOf(record), answered));
    for (const turn of turns) {
      if (turn.answer.status !== 'elsewhere' || held.has(turn.id) || awaited.has(turn.id)) continue;
      awaited.add(turn.id);
      void answering.over(turn.id).then(() => {
        awaited.delete(turn.id);
        return refresh(id);
      });
    }
    return { chat: stored.chat, turns };
  }

  function offerBack({ id, title, firstQuestion }: ChatRecord, what: string): void {
    const notice = { code: `deleted_${id}`, sentence: `“${titleOf(title, firstQuestion)}” ${what}.`, action: { label: 'Undo', restore: id }, good: true };
    store.dispatch({ type: 'notice_shown', notice });
  }

  function show(conversation: Conversation): void {
    written = new Map(conversation.turns.map((turn) => [turn.id, turn]));
    writtenLeaf = conversation.leaf;
    writtenModel = conversation.model;
    store.dispatch({ type: 'conversation_opened', conversation });
  }

  /** The open conversation is put away; what it has is kept. */
  async function leave(): Promise<void> {
    stop();
    const kept = flush();
    show(emptyConversation(newId()));
    await kept;
  }

  async function open(id: string): Promise<void> {
    if (store.state().conversation.id === id) return;
    stop();
    await opened;
    await flush();
    await opened;
    const stored = await read(id);
    if (stored?.chat.deletedAt !== null) {
      tell('no_such_chat', 'This chat is not kept in this browser; here is a new one.');
      await leave();
      return;
    }
    const { turns } = stored;
    const { title, model = null, leaf } = stored.chat;
    const conversation = { id, title, model, turns, leaf };
    // A page that was closed in the middle of an answer may have written the turn and no more.
    const known = leaf !== null && turns.some((turn) => turn.id === leaf);
    show({ ...conversation, leaf: known ? leafBelow(conversation, leaf) : newestLeaf(conversation) });
  }

  async function told(id: string): Promise<void> {
    tabs.postMessage(id);
    await list();
  }

  const opened = opening.then(async (found) => {
    database = found;
    const words = takeLastWords();
    if (words !== null) await found?.complete(words, now() - KEPT_AFTER_DELETION_MS).catch(() => undefined);
    if (found === null) tell('not_kept', 'This browser keeps no data for this page, so your chats are here until you close it. Export those you need.');
    else void found.purge(now() - KEPT_AFTER_DELETION_MS).then(list, list);
  });

  return {
    begin() {
      if (store.state().conversation.turns.length > 0) void leave();
    },
    open,
    async rename(id, title) {
      const name = title.trim().slice(0, LONGEST_NAME);
      await opened;
      await flush();
      await database?.change(id, { title: name === '' ? null : name });
      await refresh(id);
      await told(id);
    },
    async remove(id) {
      await opened;
      if (store.state().conversation.id === id) await leave();
      await database?.change(id, { deletedAt: now() });
      const stored = (await database?.read(id)) ?? null;
      await told(id);
      if (stored !== null) offerBack(stored.chat, 'was deleted');
    },
    async restore(id) {
      store.dispatch({ type: 'notice_dismissed', code: `deleted_${id}` });
      await opened;
      await database?.change(id, { deletedAt: null });
      await told(id);
      await open(id);
    },
    async exported(id) {
      await opened;
      await flush();
      const { exportChats } = await import('./storage/archive');
      const ids = id === null ? ((await database?.list()) ?? []).map((chat) => chat.id) : [id];
      const chats = await Promise.all(ids.map((each) => database?.read(each) ?? Promise.resolve(null)));
      const stored = chats.filter((chat) => chat !== null);
      return exportChats(stored.length > 0 ? stored : [unsaved(store.state().conversation, now())], new Date(now()));
    },
    async take(text) {
      await opened;
      const { ArchiveError, importChats } = await import('./storage/archive');
      try {
        const chats = importChats(text);
        if (database === null) throw new Error('nothing is kept');
        let turns = 0;
        for (const chat of chats) {
          turns += await database.add(chat);
          await told(chat.chat.id);
        }
        const many = `${String(chats.length)} ${chats.length === 1 ? 'chat' : 'chats'}`;
        tell('imported', turns > 0 ? `Imported ${many}.` : `The file holds ${many}, and all of it was here already.`, true);
        const [first] = chats;
        if (first !== undefined && chats.length === 1) await open(first.chat.id);
      } catch (error) {
        tell('imported', error instanceof ArchiveError ? error.message : 'The file could not be kept in this browser; nothing more was imported.');
      }
    },
    refreshList: list,
    flush,
    goingAway() {
      const { conversation, turns } = store.state();
      const last = turns.at(-1);
      if (last !== undefined && last.answer.ask > 0 && !safe.has(last)) leaveLastWords({ chat: chatRecord(conversation, now()), turns: [turnRecord(conversation.id, last)] });
      void flush();
    },
  };
}

/** Where nothing is kept, what is on the screen can still be taken away as a file. */
function unsaved(conversation: Conversation, at: number): StoredChat {
  return { chat: chatRecord(conversation, at), turns: conversation.turns.map((turn) => turnRecord(conversation.id, turn)) };
}
