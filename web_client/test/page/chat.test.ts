import { describe, expect, it } from 'vitest';
import { engineOver } from '../../src/client/engine';
import { createChat, type Chat } from '../../src/page/chat';
import { emptyConversation } from '../../src/page/conversation';
import { DEFAULT_SETTINGS } from '../../src/page/settings';
import { initialState } from '../../src/page/state';
import { createStore, type Store } from '../../src/page/store';
import { FakePort, OPTIONS } from '../client/fake_port';
import { failure, finished, lastAnswer, text } from './fixtures';

function begin(): { store: Store; chat: Chat; engines: FakePort[]; engine: () => FakePort } {
  const store = createStore(initialState({ ...DEFAULT_SETTINGS, seed: 7 }, 'c'));
  const engines: FakePort[] = [];
  const chat = createChat(store, (choices) => {
    const port = new FakePort();
    engines.push(port);
    return engineOver(port, { ...OPTIONS, ...choices });
  });
  const engine = (): FakePort => {
    const newest = engines.at(-1);
    if (newest === undefined) throw new Error('no engine');
    return newest;
  };
  return { store, chat, engines, engine };
}

const turn = (store: Store): string => store.state().conversation.leaf ?? '';

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
      begin: '',
      stop: [],
    });
  });

  it('sends neither an empty question nor a second one while an answer is under way', () => {
    const { chat, engine } = begin();
    chat.send(' \n ');
    chat.send('One');
    chat.send('Two');
    chat.goOn();
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

  it('asks the last question again under a new number', async () => {
    const { chat, store, engine } = begin();
    chat.send('One');
    await engine().emit(failure(1));
    chat.regenerate(turn(store));
    expect(engine().commands.at(-1)).toMatchObject({ type: 'ask', ask: 2, messages: [{ role: 'user', content: 'One' }] });
    await engine().emit(text(1, 'ghost'));
    await engine().emit(finished(2, 'Yes.'));
    expect(lastAnswer(store.state()).text).toBe('Yes.');
  });

  it('gives another answer beside the former one, which can be shown again', async () => {
    const { chat, store, engine } = begin();
    chat.send('One');
    await engine().emit(finished(1, 'First.'));
    const first = turn(store);
    chat.regenerate(first);
    expect(engine().commands.at(-1)).toMatchObject({ ask: 2, messages: [{ role: 'user', content: 'One' }], begin: '' });
    await engine().emit(finished(2, 'Second.'));
    chat.showVersion(first);
    expect(lastAnswer(store.state()).text).toBe('First.');
    expect(store.state().conversation.turns).toHaveLength(2);
  });

  it('puts an edited question in the place of the former, and loses nothing that followed', async () => {
    const { chat, store, engine } = begin();
    chat.send('One');
    await engine().emit(finished(1, 'First.'));
    const first = turn(store);
    chat.send('Two');
    await engine().emit(finished(2, 'Second.'));
    chat.edit(first, ' Uno ');
    expect(engine().commands.at(-1)).toMatchObject({ ask: 3, messages: [{ role: 'user', content: 'Uno' }] });
    chat.stop();
    chat.showVersion(first);
    expect(store.state().turns.map(({ question }) => question)).toEqual(['One', 'Two']);
  });

  it('stops an answer that is under way before it makes another version of it', async () => {
    const { chat, store, engine } = begin();
    chat.send('One');
    await engine().emit(text(1, 'Half'));
    chat.regenerate(turn(store));
    expect(engine().types.slice(1)).toEqual(['ask', 'stop', 'ask']);
    expect(store.state().conversation.turns.map(({ answer }) => answer.status)).toEqual(['stopped', 'waiting']);
  });

  it('goes on where an answer was cut short', async () => {
    const { chat, store, engine } = begin();
    chat.send('One');
    await engine().emit(text(1, 'Once'));
    chat.stop();
    chat.goOn();
    expect(engine().commands.at(-1)).toMatchObject({ type: 'ask', ask: 2, begin: 'Once', messages: [{ role: 'user', content: 'One' }] });
    await engine().emit(text(2, ' upon'));
    expect(lastAnswer(store.state()).text).toBe('Once upon');
  });

  it('starts a failed engine again before it asks', async () => {
    const { chat, store, engines } = begin();
    chat.send('One');
    await engines[0]?.emit(failure(null));
    chat.regenerate(turn(store));
    expect(engines).toHaveLength(2);
    expect(engines[0]?.closed).toBe(true);
    expect(engines[1]?.types).toEqual(['connect', 'ask']);
    expect(store.state().engineFailure).toBeNull();
  });

  it('tells the engine of another effort, and a new engine too', () => {
    const { chat, store, engines, engine } = begin();
    chat.configure({ ...store.state().settings, effort: 0.5 });
    chat.configure({ ...store.state().settings, temperature: 1 });
    expect(engine().commands.slice(1)).toEqual([{ type: 'effort', effort: 0.5 }]);
    chat.reconnect();
    expect(engines[1]?.commands).toEqual([{ type: 'connect', options: { ...OPTIONS, effort: 0.5 } }]);
  });

  it('tells the engine what a person wants done with the weights', () => {
    const { chat, store, engine } = begin();
    chat.configure({ ...store.state().settings, lessData: true });
    chat.allowDownloads(true);
    chat.configure({ ...store.state().settings, keepWeights: false });
    chat.askStorage();
    chat.clearStorage();
    const weights = [{ keep: true, download: false }, { keep: true, download: true }, { keep: false, download: true }];
    expect(engine().commands.slice(1)).toEqual([...weights.map((choice) => ({ type: 'weights', weights: choice })), { type: 'storage' }, { type: 'clear_storage' }]);
  });

  it('keeps a pause until it ends or another choice is made, whatever else is set', () => {
    const { chat, store, engines, engine } = begin();
    chat.allowDownloads(false);
    chat.configure({ ...store.state().settings, keepWeights: false });
    expect(engine().commands.at(-1)).toEqual({ type: 'weights', weights: { keep: false, download: false } });
    chat.reconnect();
    expect(engines[1]?.commands).toEqual([{ type: 'connect', options: { ...OPTIONS, weights: { keep: false, download: false } } }]);
    chat.configure({ ...store.state().settings, lessData: true });
    chat.configure({ ...store.state().settings, lessData: false });
    expect(engines[1]?.commands.at(-1)).toEqual({ type: 'weights', weights: { keep: false, download: 'ask' } });
  });

  describe('with several models', () => {
    const models = ['small', 'large'];
    const asked = (engine: FakePort): unknown => engine.commands.map((command) => (command.type === 'connect' ? command.options.model : command.type));

    it('goes on with the first where nothing is chosen, without a new engine', () => {
      const { store, chat, engines } = begin();
      store.dispatch({ type: 'models_listed', models });
      chat.send('Hello?');
      expect(engines.map(asked)).toEqual([[null, 'ask']]);
      expect(store.state().conversation.model).toBe('small');
    });

    it('has the chosen one answer, and a conversation that was with the other goes back to it', async () => {
      const { store, chat, engines, engine } = begin();
      store.dispatch({ type: 'models_listed', models });
      chat.send('Hello?');
      await engine().emit(finished(1, 'Hi.'));
      const former = store.state().conversation;
      expect(chat.chooseModel('large').model).toBe('large');
      expect(engines[0]?.closed).toBe(true);
      store.dispatch({ type: 'conversation_opened', conversation: emptyConversation('new') });
      chat.send('And you?');
      await engine().emit(finished(2, 'Hi.'));
      expect(store.state().conversation.model).toBe('large');
      store.dispatch({ type: 'conversation_opened', conversation: former });
      expect(engines.map(asked)).toEqual([[null, 'ask'], ['large', 'ask'], ['small']]);
    });

    it('lets an answer under way come to its end first', async () => {
      const { store, chat, engines, engine } = begin();
      store.dispatch({ type: 'models_listed', models });
      chat.send('Hello?');
      chat.chooseModel('large');
      expect(engines).toHaveLength(1);
      await engine().emit(finished(1, 'Hi.'));
      expect([engines.length, store.state().conversation.model]).toEqual([2, 'large']);
    });

    it('asks anew before it downloads another one', () => {
      const { chat, store, engine } = begin();
      store.dispatch({ type: 'models_listed', models });
      const allowed = (): unknown => engine().commands.map((command) => (command.type === 'connect' ? command.options.weights?.download : command.type));
      chat.allowDownloads(true);
      chat.chooseModel('large');
      expect(allowed()).toEqual(['ask']);
      chat.allowDownloads(false);
      chat.chooseModel('small');
      expect(allowed()).toEqual([false]);
    });

    it('says of each conversation whether its model is gone', () => {
      const { chat, store } = begin();
      const sentences = (): readonly string[] => store.state().notices.map(({ sentence }) => sentence);
      store.dispatch({ type: 'models_listed', models });
      store.dispatch({ type: 'conversation_opened', conversation: { ...emptyConversation('d'), model: 'gone' } });
      expect(sentences()).toEqual(['This server has no model “gone” any more; small answers in its place.']);
      chat.dismiss('model_gone');
      store.dispatch({ type: 'models_listed', models });
      expect(sentences(), 'said once').toEqual([]);
      store.dispatch({ type: 'conversation_opened', conversation: { ...emptyConversation('e'), model: 'former' } });
      expect(sentences()).toHaveLength(1);
      store.dispatch({ type: 'conversation_opened', conversation: emptyConversation('f') });
      expect(sentences(), 'of no conversation that is shown').toEqual([]);
    });

    it('says so when the server has the model no more', () => {
      const { store, engines } = begin();
      store.dispatch({ type: 'model_chosen', model: 'gone' });
      store.dispatch({ type: 'models_listed', models });
      expect(engines.map(asked)).toEqual([[null], ['gone'], ['small']]);
      expect(store.state().notices.map(({ sentence }) => sentence)).toEqual(['This server has no model “gone” any more; small answers in its place.']);
    });
  });
});
