import { describe, expect, it } from 'vitest';
import type { Command, EngineEvent, EngineOptions } from '../../src/api';
import { createChat, type Chat } from '../../src/page/chat';
import type { EngineHandle } from '../../src/page/engine';
import { DEFAULT_SETTINGS } from '../../src/page/settings';
import { initialState } from '../../src/page/state';
import { createStore, type Store } from '../../src/page/store';
import { failure, finished, lastAnswer, text } from './fixtures';

const OPTIONS: EngineOptions = { server: 'http://127.0.0.1:8000', split: 'auto', backend: 'auto', variant: 'auto', wire: 'float16', effort: null };

/** An engine in memory that notes what it is told. */
class FakeEngine implements EngineHandle {
  readonly commands: Command[] = [];
  closed = false;
  private listener: (event: EngineEvent) => void = () => undefined;

  post(command: Command): void {
    this.commands.push(command);
  }

  listen(listener: (event: EngineEvent) => void): void {
    this.listener = listener;
  }

  close(): void {
    this.closed = true;
  }

  emit(event: EngineEvent): void {
    if (!this.closed) this.listener(event);
  }

  get types(): readonly string[] {
    return this.commands.map((command) => command.type);
  }
}

function begin(): { store: Store; chat: Chat; engines: FakeEngine[]; engine: () => FakeEngine } {
  const store = createStore(initialState({ ...DEFAULT_SETTINGS, seed: 7 }));
  const engines: FakeEngine[] = [];
  const chat = createChat(store, OPTIONS, () => {
    const engine = new FakeEngine();
    engines.push(engine);
    return engine;
  });
  const engine = (): FakeEngine => {
    const newest = engines.at(-1);
    if (newest === undefined) throw new Error('no engine');
    return newest;
  };
  return { store, chat, engines, engine };
}

describe('a chat', () => {
  it('connects first, with the options', () => {
    expect(begin().engine().commands).toEqual([{ type: 'connect', options: OPTIONS }]);
  });

  it('asks with the conversation and the settings', () => {
    const { chat, engine } = begin();
    chat.send('  Hello?\n');
    expect(engine().commands.at(-1)).toEqual({
      type: 'ask',
      ask: 1,
      messages: [{ role: 'user', content: 'Hello?' }],
      sampling: { temperature: 0, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1, seed: 7 },
      maxTokens: 256,
      stop: [],
    });
  });

  it('sends neither an empty question nor a second one while an answer is under way', () => {
    const { chat, engine } = begin();
    chat.send(' \n ');
    chat.send('One');
    chat.send('Two');
    chat.retry();
    expect(engine().types).toEqual(['connect', 'ask']);
  });

  it('stops the answer under way, once', () => {
    const { chat, engine } = begin();
    chat.stop();
    chat.send('One');
    chat.stop();
    chat.stop();
    expect(engine().commands.slice(2)).toEqual([{ type: 'stop', ask: 1 }]);
  });

  it('asks the last question again under a new number', () => {
    const { chat, store, engine } = begin();
    chat.send('One');
    engine().emit(failure(1));
    chat.retry();
    expect(engine().commands.at(-1)).toMatchObject({ type: 'ask', ask: 2, messages: [{ role: 'user', content: 'One' }] });
    engine().emit(text(1, 'ghost'));
    engine().emit(finished(2, 'Yes.'));
    expect(lastAnswer(store.state()).text).toBe('Yes.');
  });

  it('stops a running answer when it is cleared, and does not show what comes late', () => {
    const { chat, store, engine } = begin();
    chat.send('One');
    chat.clear();
    engine().emit(text(1, 'late'));
    expect(engine().commands.at(-1)).toEqual({ type: 'stop', ask: 1 });
    expect(store.state().turns).toEqual([]);
    chat.send('Two');
    expect(engine().commands.at(-1)).toMatchObject({ ask: 2, messages: [{ content: 'Two' }] });
  });

  it('starts a failed engine again before it asks', () => {
    const { chat, store, engines } = begin();
    chat.send('One');
    engines[0]?.emit(failure(null));
    chat.retry();
    expect(engines).toHaveLength(2);
    expect(engines[0]?.closed).toBe(true);
    expect(engines[1]?.types).toEqual(['connect', 'ask']);
    expect(store.state().engineFailure).toBeNull();
  });

  it('hands diagnostics to whoever asked', async () => {
    const { chat, engine } = begin();
    const diagnostics = { adapter: null, backend: 'wasm', split: 2, blockRuns: [1, 1], kvLocations: ['cpu', 'cpu'], crossOriginIsolated: false, log: [] } as const;
    const [one, two] = [chat.diagnostics(), chat.diagnostics()];
    engine().emit({ type: 'diagnostics', diagnostics });
    expect(await one).toBe(diagnostics);
    expect(await two).toBe(diagnostics);
  });
});
