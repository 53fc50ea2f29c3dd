/** Conversations in IndexedDB: the one file that imports `idb`. */
import { openDB, type DBSchema, type IDBPDatabase } from 'idb';
import type { ChatRecord, TurnRecord } from './records';

const NAME = 'splitllm-chats';
const VERSION = 1;

interface Schema extends DBSchema {
  chats: { key: string; value: ChatRecord };
  turns: { key: string; value: TurnRecord; indexes: { chat: string } };
}

export interface StoredChat {
  readonly chat: ChatRecord;
  readonly turns: readonly TurnRecord[];
}

/** What may be changed of a record without its turns. */
export type ChatChange = Partial<Pick<ChatRecord, 'title' | 'leaf' | 'deletedAt'>>;

export class ChatDatabase {
  private constructor(private readonly database: IDBPDatabase<Schema>) {}

  /** Throws where the browser keeps nothing, as in some private windows. */
  static async open(name = NAME): Promise<ChatDatabase> {
    const database = await openDB<Schema>(name, VERSION, {
      upgrade(fresh) {
        fresh.createObjectStore('chats', { keyPath: 'id' });
        fresh.createObjectStore('turns', { keyPath: 'id' }).createIndex('chat', 'chat');
      },
      // A newer page in another tab wants to change the shape: it shall not wait for this one.
      blocking(_current, _blocked, event) {
        (event.target as IDBDatabase).close();
      },
    });
    return new ChatDatabase(database);
  }

  /** Those that are not deleted, the newest first. */
  async list(): Promise<readonly ChatRecord[]> {
    const chats = await this.database.getAll('chats');
    return chats.filter((chat) => chat.deletedAt === null).sort((one, other) => other.updatedAt - one.updatedAt);
  }

  async read(id: string): Promise<StoredChat | null> {
    const transaction = this.database.transaction(['chats', 'turns']);
    const [chat, turns] = await Promise.all([transaction.objectStore('chats').get(id), transaction.objectStore('turns').index('chat').getAll(id)]);
    return chat === undefined ? null : { chat, turns };
  }

  /** Writes these turns, and the record with what is new of it; what another tab has written of either stays. */
  async save(chat: ChatRecord, turns: readonly TurnRecord[]): Promise<void> {
    // Asked for and committed in one go: a page that is being closed gets no second one.
    const writing = this.database.transaction('turns', 'readwrite', { durability: 'relaxed' });
    const written = turns.map((turn) => writing.store.put(turn));
    writing.commit();
    await Promise.all([...written, writing.done]);
    const { leaf, model, updatedAt } = chat;
    const transaction = this.database.transaction('chats', 'readwrite', { durability: 'relaxed' });
    const known = await transaction.store.get(chat.id);
    await transaction.store.put(known === undefined ? chat : { ...known, leaf, model, updatedAt });
    await transaction.done;
  }

  /**
   * Writes what a page had no time to write: a turn that is missing or knows less, and the record. What was deleted stays so: a
   * chat that is not here any more is written only when the page left after `purged`, in milliseconds since 1970.
   */
  async complete({ chat, turns }: StoredChat, purged: number): Promise<void> {
    const transaction = this.database.transaction(['chats', 'turns'], 'readwrite');
    const [chats, stored] = [transaction.objectStore('chats'), transaction.objectStore('turns')];
    const known = await chats.get(chat.id);
    if (known === undefined ? chat.updatedAt < purged : known.deletedAt !== null) return;
    const { leaf, model, updatedAt } = chat;
    if (known === undefined || known.updatedAt < updatedAt) await chats.put(known === undefined ? chat : { ...known, leaf, model, updatedAt });
    for (const turn of turns) {
      const before = await stored.get(turn.id);
      if (before === undefined || before.answer.text.length < turn.answer.text.length) await stored.put(turn);
    }
    await transaction.done;
  }

  /** Adds what is missing: a turn or a record that is here stays as it is. Returns how many turns were new. */
  async add({ chat, turns }: StoredChat): Promise<number> {
    const transaction = this.database.transaction(['chats', 'turns'], 'readwrite');
    const chats = transaction.objectStore('chats');
    const known = await chats.get(chat.id);
    await chats.put(known === undefined ? chat : { ...known, deletedAt: null });
    let added = 0;
    for (const turn of turns) {
      if ((await transaction.objectStore('turns').getKey(turn.id)) !== undefined) continue;
      await transaction.objectStore('turns').add(turn);
      added += 1;
    }
    await transaction.done;
    return added;
  }

  async change(id: string, change: ChatChange): Promise<void> {
    const transaction = this.database.transaction('chats', 'readwrite');
    const known = await transaction.store.get(id);
    if (known !== undefined) await transaction.store.put({ ...known, ...change });
    await transaction.done;
  }

  /** Takes away for good what was deleted before this time. */
  async purge(before: number): Promise<void> {
    const transaction = this.database.transaction(['chats', 'turns'], 'readwrite');
    for (const chat of await transaction.objectStore('chats').getAll()) {
      if (chat.deletedAt === null || chat.deletedAt >= before) continue;
      await transaction.objectStore('chats').delete(chat.id);
      for (const key of await transaction.objectStore('turns').index('chat').getAllKeys(chat.id)) await transaction.objectStore('turns').delete(key);
    }
    await transaction.done;
  }

  close(): void {
    this.database.close();
  }
}
