import { describe, expect, it, vi } from 'vitest';
import { createLibrary } from '../../src/page/library';
import { DEFAULT_SETTINGS } from '../../src/page/settings';
import { initialState } from '../../src/page/state';
import { importChats } from '../../src/page/storage/archive';
import { ChatDatabase, type StoredChat } from '../../src/page/storage/database';
import { turnRecord } from '../../src/page/storage/records';
import { createStore } from '../../src/page/store';
import { channel, id, locks, open, shown, tab, type Tab } from './browser';
import { finished, text } from './fixtures';
import { HOSTILE } from './hostile';

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

  it('keeps what was shown of an answer that was under way when its page was closed', async () => {
    const name = id();
    const before = await tab(name);
    await before.ask('One?', 'Half');
    before.vanish();
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

  describe('takes what a page had no time to write', () => {
    async function left(): Promise<{ database: ChatDatabase; words: (text: string, turn?: string) => StoredChat; turn: string; chat: string; name: string }> {
      const name = id();
      const before = await tab(name);
      const turn = await before.say('One?', 'First and more.');
      const database = open.at(-1);
      const { id: chat } = before.state().conversation;
      const record = (await database?.read(chat)) ?? null;
      const [known] = before.state().turns;
      if (database === undefined || record === null || known === undefined) throw new Error('not written');
      const words = (text: string, name = turn): StoredChat => ({
        chat: { ...record.chat, leaf: name, updatedAt: record.chat.updatedAt + 1 },
        turns: [turnRecord(chat, { ...known, id: name, createdAt: known.createdAt + 1, answer: { ...known.answer, text } })],
      });
      return { database, words, turn, chat, name };
    }

    const texts = async (database: ChatDatabase, chat: string): Promise<readonly string[] | undefined> =>
      (await database.read(chat))?.turns.map(({ answer }) => answer.text).sort();

    it('more of an answer, and nothing older', async () => {
      const { database, words, turn, chat, name } = await left();
      await database.complete(words('First'), 0);
      expect(await texts(database, chat)).toEqual(['First and more.']);
      await database.complete(words('First and more. And more.'), 0);
      const after = await tab(name);
      await after.library.open(chat);
      expect(after.state().turns[0]).toMatchObject({ id: turn, answer: { text: 'First and more. And more.' } });
    });

    it('a question that was not written at all, and shows it', async () => {
      const { database, words, turn, chat, name } = await left();
      const version = id();
      await database.complete(words('', version), 0);
      const after = await tab(name);
      await after.library.open(chat);
      expect(after.state().conversation.turns.map((each) => each.id).sort()).toEqual([turn, version].sort());
      expect(after.state().turns.map((each) => each.id)).toEqual([version]);
    });

    it('but nothing of a chat that was deleted meanwhile', async () => {
      const { database, words, chat } = await left();
      await database.change(chat, { deletedAt: 5 });
      await database.complete(words('First and more. And more.'), 0);
      await database.complete(words('Of a turn that is gone', id()), 0);
      expect(await texts(database, chat)).toEqual(['First and more.']);
      expect(await database.list()).toEqual([]);
    });

    it('and of a chat that is not there the words of a page that has just gone: older ones were deleted', async () => {
      const { database, words, chat } = await left();
      await database.change(chat, { deletedAt: 5 });
      await database.purge(6);
      const last = words('First and more. And more.');
      await database.complete(last, last.chat.updatedAt + 1);
      expect(await database.read(chat)).toBeNull();
      await database.complete(last, last.chat.updatedAt);
      expect(await texts(database, chat)).toEqual(['First and more. And more.']);
    });

    it('a first question on a page that is reloaded before anything is written', async () => {
      const kept = new Map<string, string>();
      vi.stubGlobal('sessionStorage', {
        getItem: (key: string) => kept.get(key) ?? null,
        setItem: (key: string, value: string) => kept.set(key, value),
        removeItem: (key: string) => kept.delete(key),
      });
      try {
        const store = createStore(initialState(DEFAULT_SETTINGS, id()));
        // It is opened too late for this page.
        const library = createLibrary(store, new Promise(() => undefined), channel.end(), locks.of(id()), () => undefined);
        store.dispatch({ type: 'asked', ask: 1, id: id(), at: 1, parent: null, question: 'One?' });
        library.goingAway();
        const after = await tab(id());
        expect(after.state().chats.map(({ title }) => title)).toEqual(['One?']);
        await after.library.open(store.state().conversation.id);
        expect(after.state().turns[0]?.answer.status).toBe('stopped');
        expect(kept.size).toBe(0);
        // What is written needs no words: whoever empties the browser's storage meanwhile does not find it there again.
        await after.say('Two?', 'Second.');
        after.library.goingAway();
        expect(kept.size).toBe(0);
      } finally {
        vi.unstubAllGlobals();
      }
    });
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

  it('remembers its model, also one that was chosen without another question', async () => {
    const name = id();
    const first = await tab(name);
    first.store.dispatch({ type: 'models_listed', models: ['small', 'large'] });
    await first.say('One?', 'First.');
    first.store.dispatch({ type: 'model_chosen', model: 'large' });
    await first.library.flush();
    const after = await tab(name);
    await after.library.open(first.state().conversation.id);
    expect(after.state().conversation.model).toBe('large');
    const [chat] = importChats(await after.library.exported(null));
    expect(chat?.chat.model).toBe('large');
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

  it('say that the other is answering, until it has done so', async () => {
    const [one, other] = await two();
    const turn = await one.ask('Two?');
    await vi.waitFor(() => {
      expect(other.state().turns[1]?.answer).toMatchObject({ status: 'elsewhere', text: '' });
    });
    one.store.dispatch(text(one.state().lastAsk, 'Sec'));
    await one.library.flush();
    await vi.waitFor(() => {
      expect(other.state().turns[1]?.answer).toMatchObject({ status: 'elsewhere', text: 'Sec' });
    });
    const third = await tab(one.name);
    await third.library.open(one.state().conversation.id);
    expect(third.state().turns[1]?.answer.status).toBe('elsewhere');
    one.store.dispatch(finished(one.state().lastAsk, 'Second.'));
    await one.library.flush();
    for (const { state } of [other, third]) {
      await vi.waitFor(() => {
        expect(state().turns[1]).toMatchObject({ id: turn, answer: { status: 'finished', text: 'Second.' } });
      });
    }
  });

  it('say that an answer was cut short when the other has gone without a word', async () => {
    const [one, other] = await two();
    await one.ask('Two?', 'Sec');
    await vi.waitFor(() => {
      expect(other.state().turns[1]?.answer.status).toBe('elsewhere');
    });
    one.vanish();
    await vi.waitFor(() => {
      expect(other.state().turns[1]?.answer).toMatchObject({ status: 'stopped', text: 'Sec' });
    });
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
