/** A browser with the library open in several tabs; a new one for each test. */
import 'fake-indexeddb/auto';
import { afterEach, beforeEach } from 'vitest';
import type { Answering } from '../../src/page/answering';
import { createLibrary, type Library, type Tabs } from '../../src/page/library';
import { DEFAULT_SETTINGS } from '../../src/page/settings';
import { initialState, type State } from '../../src/page/state';
import { ChatDatabase } from '../../src/page/storage/database';
import { createStore, type Store } from '../../src/page/store';
import { finished, text } from './fixtures';

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

/** What Web Locks do, within one page: a tab that has gone lets go of everything. */
class Locks {
  private readonly held = new Map<string, { readonly done: Promise<void>; readonly release: () => void; readonly tab: string }>();

  of(tab: string): Answering {
    return {
      hold: (turn) => {
        let release = (): void => undefined;
        const done = new Promise<void>((resolve) => {
          release = () => {
            this.held.delete(turn);
            resolve();
          };
        });
        this.held.set(turn, { done, release, tab });
        return release;
      },
      now: () => Promise.resolve(new Set(this.held.keys())),
      over: (turn) => this.held.get(turn)?.done ?? Promise.resolve(),
    };
  }

  gone(tab: string): void {
    for (const lock of [...this.held.values()]) if (lock.tab === tab) lock.release();
  }
}

let number = 0;
export let channel: Channel;
export let locks: Locks;
/** The databases that a test has open. */
export const open: ChatDatabase[] = [];
export const id = (): string => (number += 1).toString(16).padStart(32, '0');

beforeEach(() => {
  number += 1000;
  channel = new Channel();
  locks = new Locks();
});
afterEach(() => {
  for (const database of open.splice(0)) database.close();
});

export interface Tab {
  /** Of the database. */
  readonly name: string;
  readonly store: Store;
  readonly library: Library;
  readonly state: () => State;
  /** A question that is being answered. */
  readonly ask: (question: string, begun?: string) => Promise<string>;
  /** As when it is closed, or crashes. */
  readonly vanish: () => void;
  /** A question and its whole answer. */
  readonly say: (question: string, answer: string) => Promise<string>;
}

export async function tab(name: string, keeps = true): Promise<Tab> {
  const store = createStore(initialState(DEFAULT_SETTINGS, id()));
  const database = keeps ? await ChatDatabase.open(name) : null;
  if (database !== null) open.push(database);
  const me = id();
  const library = createLibrary(store, Promise.resolve(database), channel.end(), locks.of(me), () => {
    store.dispatch({ type: 'stop_pressed' });
  });
  await library.refreshList();
  const state = (): State => store.state();
  const ask = async (question: string, begun = ''): Promise<string> => {
    const number = state().lastAsk + 1;
    const turn = id();
    store.dispatch({ type: 'asked', ask: number, id: turn, at: number, parent: state().conversation.leaf, question });
    if (begun !== '') store.dispatch(text(number, begun));
    await library.flush();
    return turn;
  };
  const say = async (question: string, answer: string): Promise<string> => {
    const turn = await ask(question);
    store.dispatch(finished(state().lastAsk, answer));
    await library.flush();
    return turn;
  };
  const vanish = (): void => {
    locks.gone(me);
  };
  return { name, store, library, state, ask, say, vanish };
}

export const shown = (state: State): string => state.turns.map(({ question, answer }) => `${question} ${answer.text}`).join(' | ');
