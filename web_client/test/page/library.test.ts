import 'fake-indexeddb/auto';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createLibrary, type Library, type Tabs } from '../../src/page/library';
import { DEFAULT_SETTINGS } from '../../src/page/settings';
import { initialState, type State } from '../../src/page/state';
import { ChatDatabase } from '../../src/page/storage/database';
import { createStore, type Store } from '../../src/page/store';
import { finished, text } from './fixtures';
import { HOSTILE } from './hostile';

/** What a `BroadcastChannel` does, within one page. */
class Channel {
  private readonly ends: { tabs: Tabs; hear: (data: unknown) => void }[] = [];

  end(): Tabs {
    const listeners: ((event: { readonly data: unknown }) => void)[] = [];
    const tabs: Tabs = {
      postMessage: (id) => {
        for (const other of this.ends) if (other.tabs !== tabs) other.hear(id);
      },
      addEventListener: (_type, listener) => listeners.push(listener),
    };
    this.ends.push({ tabs, hear: (data) => {
        for (const listener of listeners) listener({ data });
      } });
    return tabs;
  }
}

let number = 0;
let channel: Channel;
const open: ChatDatabase[] = [];
const id = (): string => (number += 1).toString(16).padStart(32, '0');

beforeEach(() => {
  number += 1000;
  channel = new Channel();
});
afterEach(() => {
  for (const database of open.splice(0)) database.close();
});

interface Tab {
  readonly store: Store;
  readonly library: Library;
  readonly state: () => State;
  /** A question and its whole answer. */
  readonly say: (question: string, answer: string) => Promise<string>;
}

async function tab(name: string, keeps = true): Promise<Tab> {
  const store = createStore(initialState(DEFAULT_SETTINGS, id()));
  const database = keeps ? await ChatDatabase.open(name) : null;
  if (database !== null) open.push(database);
  const library = createLibrary(store, Promise.resolve(database), channel.end(), () => {
    store.dispatch({ type: 'stop_pressed' });
  });
  await library.refreshList();
  const state = (): State => store.state();
  const say = async (question: string, answer: string): Promise<string> => {
    const ask = state().lastAsk + 1;
    const turn = id();
    store.dispatch({ type: 'asked', ask, id: turn, at: ask, parent: state().conversation.leaf, question });
    store.dispatch(finished(ask, answer));
    await library.flush();
    return turn;
  };
  return { store, library, state, say };
}

const shown = (state: State): string => state.turns.map(({ question, answer }) => `${question} ${answer.text}`).join(' | ');

describe('a conversation', () => {
  it('is listed by its first question, and read again after a reload', async () => {
    const name = id();
    const before = await tab(name);
    await before.say('One?', 'First.');
    await before.say('Two?', 'Second.');
    const after = await tab(name);
    expect(after.state().chats).toEqual([{ id: before.state().conversation.id, title: 'One?' }]);
    await after.library.open(before.state().conversation.id);
    expect(shown(after.state())).toBe('One? First. | Two? Second.');
    expect(after.state().turns.every(({ answer }) => answer.ask === 0)).toBe(true);
  });

  it('keeps what was shown of an answer that was under way', async () => {
    const name = id();
    const before = await tab(name);
    before.store.dispatch({ type: 'asked', ask: 1, id: id(), at: 1, parent: null, question: 'One?' });
    before.store.dispatch(text(1, 'Half'));
    await before.library.flush();
    const after = await tab(name);
    await after.library.open(before.state().conversation.id);
    expect(after.state().turns[0]?.answer).toMatchObject({ status: 'stopped', text: 'Half' });
  });

  it('shows a turn of which the page that was closed could write no more than itself', async () => {
    const name = id();
    const before = await tab(name);
    const first = await before.say('One?', 'First.');
    await before.say('Two?', 'Second.');
    const { id: chat } = before.state().conversation;
    await open.at(-1)?.change(chat, { leaf: first });
    const after = await tab(name);
    await after.library.open(chat);
    expect(shown(after.state())).toBe('One? First. | Two? Second.');
  });

  it('takes what a page had no time to write, and nothing older', async () => {
    const name = id();
    const before = await tab(name);
    const turn = await before.say('One?', 'First and more.');
    const { id: chat } = before.state().conversation;
    const database = open.at(-1);
    const record = (await database?.read(chat))?.turns[0];
    if (record === undefined) throw new Error('not written');
    await database?.complete({ ...record, answer: { ...record.answer, text: 'First' } });
    await database?.complete({ ...record, id: id(), answer: { ...record.answer, text: 'Of a turn that is gone' } });
    expect((await database?.read(chat))?.turns.map(({ answer }) => answer.text)).toEqual(['First and more.']);
    await database?.complete({ ...record, answer: { ...record.answer, text: 'First and more. And more.' } });
    const after = await tab(name);
    await after.library.open(chat);
    expect(after.state().turns[0]).toMatchObject({ id: turn, answer: { text: 'First and more. And more.' } });
  });

  it('is written as it grows, without being told to', async () => {
    const name = id();
    const before = await tab(name);
    before.store.dispatch({ type: 'asked', ask: 1, id: id(), at: 1, parent: null, question: 'One?' });
    before.store.dispatch(text(1, 'Half'));
    await vi.waitFor(async () => {
      expect((await tab(name)).state().chats).toHaveLength(1);
    }, 4000);
  });

  it('is renamed, and called by its first question again when the name is taken away', async () => {
    const { library, state, say } = await tab(id());
    await say('One?', 'First.');
    const { id: chat } = state().conversation;
    await library.rename(chat, '  Numbers ');
    expect(state().chats[0]?.title).toBe('Numbers');
    await say('Two?', 'Second.');
    expect(state().chats[0]?.title).toBe('Numbers');
    await library.rename(chat, ' ');
    expect(state().chats[0]?.title).toBe('One?');
  });

  it('that was deleted can be had back, whole', async () => {
    const { library, state, say } = await tab(id());
    await say('One?', 'First.');
    const { id: chat } = state().conversation;
    await library.remove(chat);
    expect(state().chats).toEqual([]);
    expect(state().turns).toEqual([]);
    const [notice] = state().notices;
    expect(notice).toMatchObject({ sentence: '“One?” was deleted.', action: { label: 'Undo', restore: chat } });
    await library.restore(chat);
    expect(shown(state())).toBe('One? First.');
    expect(state().notices).toEqual([]);
  });

  it('that was deleted long ago is gone', async () => {
    const name = id();
    const { library, state, say } = await tab(name);
    await say('One?', 'First.');
    const { id: chat } = state().conversation;
    await library.remove(chat);
    const database = await ChatDatabase.open(name);
    open.push(database);
    await database.purge(Date.now() - 60_000);
    expect((await database.read(chat))?.turns).toHaveLength(1);
    await database.purge(Date.now() + 1);
    expect(await database.read(chat)).toBeNull();
  });

  it('that is not here is said to be so, and a new one begins', async () => {
    const { library, state } = await tab(id());
    await library.open(id());
    expect(state().notices[0]?.sentence).toContain('not kept in this browser');
    expect(state().turns).toEqual([]);
  });
});

describe('two tabs with one conversation', () => {
  async function two(): Promise<readonly [Tab, Tab]> {
    const name = id();
    const [one, other] = [await tab(name), await tab(name)];
    await one.say('One?', 'First.');
    await other.library.open(one.state().conversation.id);
    return [one, other];
  }

  it('see what the other says', async () => {
    const [one, other] = await two();
    await one.say('Two?', 'Second.');
    await vi.waitFor(() => {
      expect(shown(other.state())).toBe('One? First. | Two? Second.');
    });
  });

  it('that ask in the same moment lose neither question', async () => {
    const [one, other] = await two();
    await Promise.all([one.say('Here?', 'Here.'), other.say('There?', 'There.')]);
    for (const { state } of [one, other]) {
      await vi.waitFor(() => {
        expect(state().conversation.turns.map(({ answer }) => answer.text).sort()).toEqual(['First.', 'Here.', 'There.']);
      });
    }
    expect(shown(one.state())).toBe('One? First. | Here? Here.');
  });

  it('do not go on with one that the other has deleted, and can have it back', async () => {
    const [one, other] = await two();
    await one.library.remove(one.state().conversation.id);
    await vi.waitFor(() => {
      expect(other.state().turns).toEqual([]);
      expect(other.state().notices[0]?.sentence).toContain('was deleted in another tab');
    });
  });
});

describe('a file', () => {
  it('holds all chats, and gives them back elsewhere with every version', async () => {
    const here = await tab(id());
    await here.say('One?', 'First.');
    here.store.dispatch({ type: 'asked', ask: 9, id: id(), at: 9, parent: null, question: 'Uno?' });
    here.store.dispatch(finished(9, 'Primo.'));
    await here.library.flush();
    here.library.begin();
    await here.say('Other?', 'Else.');
    const file = await here.library.exported(null);
    const there = await tab(id());
    await there.library.take(file);
    expect(there.state().chats.map(({ title }) => title).sort()).toEqual(here.state().chats.map(({ title }) => title).sort());
    expect(there.state().notices.at(-1)?.sentence).toBe('Imported 2 chats.');
    await there.library.open(here.state().chats.find(({ title }) => title === 'One?')?.id ?? '');
    expect(there.state().conversation.turns).toHaveLength(2);
  });

  it('overwrites nothing, and a second time changes nothing', async () => {
    const { library, state, say } = await tab(id());
    await say('One?', 'First.');
    const file = await library.exported(state().conversation.id);
    await library.take(file.replace('First.', 'Forged.'));
    expect(state().notices.at(-1)?.sentence).toContain('was here already');
    expect(shown(state())).toBe('One? First.');
  });

  it('may hold anything that a person or a model has written', async () => {
    const here = await tab(id());
    for (const words of HOSTILE) await here.say(words, words);
    const there = await tab(id());
    await there.library.take(await here.library.exported(null));
    expect(there.state().turns.map(({ answer }) => answer.text)).toEqual(HOSTILE);
  });

  const good = { format: 'splitllm-chats', version: 1, chats: [{ id: 'a'.repeat(32), title: null, createdAt: 1, updatedAt: 1, leaf: null, turns: [{ id: 'b'.repeat(32), parent: null, createdAt: 1, question: 'x', answer: { status: 'finished', text: 'y', finishReason: 'stop', stats: null, sentence: null } }] }] };
  const [chat] = good.chats;
  const [turn] = chat?.turns ?? [];
  const bad: readonly (readonly [string, unknown, string])[] = [
    ['not JSON', 'hello', 'not JSON'],
    ['of something else', { a: 1 }, 'does not hold chats'],
    ['null', null, 'does not hold chats'],
    ['of a later version', { ...good, version: 2 }, 'another version'],
    ['without a turn', { ...good, chats: [{ ...chat, turns: [] }] }, 'damaged'],
    ['with a status of its own', { ...good, chats: [{ ...chat, turns: [{ ...turn, answer: { ...turn?.answer, status: 'waiting' } }] }] }, 'damaged'],
    ['with a number for a text', { ...good, chats: [{ ...chat, turns: [{ ...turn, question: 1 }] }] }, 'damaged'],
    ['with an id that is none', { ...good, chats: [{ ...chat, id: '../x' }] }, 'damaged'],
    ['with a turn after none', { ...good, chats: [{ ...chat, turns: [{ ...turn, parent: 'c'.repeat(32) }] }] }, 'damaged'],
    ['with a turn after itself', { ...good, chats: [{ ...chat, turns: [{ ...turn, parent: 'b'.repeat(32) }] }] }, 'damaged'],
    ['with one turn twice', { ...good, chats: [{ ...chat, turns: [turn, turn] }] }, 'damaged'],
    ['with a figure that is a text', { ...good, chats: [{ ...chat, turns: [{ ...turn, answer: { ...turn?.answer, stats: { tokens: '<b>' } } }] }] }, 'damaged'],
  ];

  it.each(bad)('%s is refused with one sentence, and nothing is taken from it', async (_what, content, said) => {
    const { library, state } = await tab(id());
    await library.take(typeof content === 'string' ? content : JSON.stringify(content));
    expect(state().notices).toHaveLength(1);
    expect(state().notices[0]?.sentence).toContain(said);
    expect(state().chats).toEqual([]);
  });

  it('brings in nothing but what it should hold', async () => {
    const { library, state } = await tab(id());
    await library.take(JSON.stringify({ ...good, chats: [{ ...chat, deletedAt: 5, evil: 1, turns: [{ ...turn, chat: 'x', answer: { ...turn?.answer, split: {}, ask: 7 } }] }] }));
    expect(state().turns[0]?.answer).toEqual({ ask: 0, earlier: null, status: 'finished', text: 'y', finishReason: 'stop', stats: null, split: null, sentence: null });
  });
});

describe('where the browser keeps nothing', () => {
  it('chats go on, the person is told once, and can still take them away', async () => {
    const { library, state, say } = await tab(id(), false);
    await say('One?', 'First.');
    expect(state().notices.map(({ code }) => code)).toEqual(['not_kept']);
    expect(await library.exported(null)).toContain('First.');
  });
});
