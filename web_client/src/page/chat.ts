/** What a person can do with the answers of the open conversation: each action changes the state and tells the engine. */
import { SplitLLMError, type Answer, type Diagnostics, type Engine, type EngineOptions, type WeightChoice } from '../client';
import type { Turn } from './conversation';
import { newId } from './ids';
import type { Settings } from './settings';
import { modelOf, wantedModel } from './models';
import { messagesFor, openAnswer, type State } from './state';
import type { Store } from './store';

export interface Chat {
  send(question: string): void;
  /** Another answer to the same question; the former one is kept as a version. */
  regenerate(turn: string): void;
  /** Another question in the place of this one; the former one, and all that followed, is kept as a version. */
  edit(turn: string, question: string): void;
  /** Go on with the last answer where it was cut short. */
  goOn(): void;
  showVersion(turn: string): void;
  stop(): void;
  reconnect(): void;
  dismiss(code: string): void;
  configure(settings: Settings): void;
  /** Pause and resume the download of the model, for this visit. */
  allowDownloads(allowed: boolean): void;
  /** Have this model of the server's answer from now on, once no answer is under way; returns the settings, which name it. */
  chooseModel(model: string): Settings;
  /** Have the state say what is kept on this device. */
  askStorage(): void;
  /** Remove the model from this device; what runs goes on. */
  clearStorage(): void;
  diagnostics(): Promise<Diagnostics>;
}

/** `startEngine` starts one with what the settings say of it. */
export function createChat(store: Store, startEngine: (choices: Pick<EngineOptions, 'model' | 'effort' | 'weights'>) => Engine, now: () => number = Date.now): Chat {
  /** Whether the model may be downloaded, as it was said for this visit; else the settings say it. */
  let allowedNow: boolean | null = null;
  /** The wanted model that the server lacks, as far as the person was told. */
  let missing: string | null = null;
  /** The model that the engine runs; null for the server's first, as long as its name is not known. */
  let running: string | null;
  let engine = start();
  /** Of the answer that was asked for last. */
  let stopping = new AbortController();

  function start(): Engine {
    running = modelOf(store.state());
    const fresh = startEngine({ model: running, effort: store.state().settings.effort, weights: weights() });
    fresh.listen((news) => {
      store.dispatch(news);
    });
    return fresh;
  }

  function weights(): WeightChoice {
    const { keepWeights, lessData } = store.state().settings;
    return { keep: keepWeights, download: allowedNow ?? (lessData ? false : 'ask') };
  }

  function restart(): void {
    engine.close();
    engine = start();
    store.dispatch({ type: 'engine_started' });
  }

  /** Conversations and choices may want another model than the one that runs. */
  store.subscribe(() => {
    const state = store.state();
    running ??= state.models[0] ?? null;
    if (openAnswer(state) !== null) return;
    if (modelOf(state) !== running) {
      // Yes to the download of one model is not yes to that of another.
      if (allowedNow === true) allowedNow = null;
      restart();
    }
    tellIfGone(state);
  });

  function tellIfGone(state: State): void {
    const wanted = wantedModel(state);
    const model = modelOf(state);
    const lacking = wanted === model ? null : wanted;
    if (lacking === missing) return;
    missing = lacking;
    if (lacking === null) store.dispatch({ type: 'notice_dismissed', code: 'model_gone' });
    else store.dispatch({ type: 'notice', code: 'model_gone', sentence: `This server has no model “${lacking}” any more; ${model ?? 'its first'} answers in its place.` });
  }

  /** Runs after the state holds the question as its last; an engine that failed is started again first. */
  function ask(begin: string): void {
    if (store.state().engineFailure !== null) restart();
    const state = store.state();
    const { temperature, topP, seed, maxTokens } = state.settings;
    stopping = new AbortController();
    const options = { begin, maxTokens, sampling: { temperature, topP, seed }, signal: stopping.signal };
    void show(state.lastAsk, engine.answer(messagesFor(state), options));
  }

  async function show(number: number, answer: Answer): Promise<void> {
    try {
      for await (const text of answer) store.dispatch({ type: 'text', ask: number, text });
      store.dispatch({ type: 'finished', ask: number, ...(await answer.result) });
    } catch (error) {
      if (!(error instanceof SplitLLMError)) throw error;
      store.dispatch({ type: 'failed', ask: number, code: error.code, sentence: error.message });
    }
  }

  function askAfter(parent: string | null, question: string, begin = ''): void {
    const number = store.state().lastAsk + 1;
    store.dispatch({ type: 'asked', ask: number, id: newId(), at: now(), parent, question, begin });
    ask(begin);
  }

  function stop(): void {
    if (openAnswer(store.state()) === null) return;
    stopping.abort();
    store.dispatch({ type: 'stop_pressed' });
  }

  function shown(id: string): Turn | undefined {
    return store.state().turns.find((turn) => turn.id === id);
  }

  return {
    send(question) {
      if (question.trim() === '' || openAnswer(store.state()) !== null) return;
      askAfter(store.state().conversation.leaf, question.trim());
    },
    regenerate(id) {
      const turn = shown(id);
      if (turn === undefined) return;
      stop();
      // An answer of this page that holds nothing is not worth a version; one of another tab is not ours to write.
      if (turn.answer.ask > 0 && turn.answer.text === '' && store.state().conversation.leaf === id) {
        store.dispatch({ type: 'asked_again', ask: store.state().lastAsk + 1, id });
        ask('');
      } else {
        askAfter(turn.parent, turn.question);
      }
    },
    edit(id, question) {
      const turn = shown(id);
      if (turn === undefined || question.trim() === '') return;
      stop();
      askAfter(turn.parent, question.trim());
    },
    goOn() {
      const turn = store.state().turns.at(-1);
      if (turn === undefined || openAnswer(store.state()) !== null) return;
      const begin = turn.answer.text;
      if (turn.answer.ask > 0) {
        store.dispatch({ type: 'continued', ask: store.state().lastAsk + 1, id: turn.id });
        ask(begin);
      } else {
        askAfter(turn.parent, turn.question, begin);
      }
    },
    showVersion(id) {
      stop();
      store.dispatch({ type: 'version_chosen', id });
    },
    stop,
    reconnect: restart,
    dismiss(code) {
      store.dispatch({ type: 'notice_dismissed', code });
    },
    configure(settings) {
      const { effort, keepWeights, lessData } = store.state().settings;
      store.dispatch({ type: 'settings_changed', settings });
      if (settings.lessData !== lessData) allowedNow = null;
      if (settings.effort !== effort) engine.setEffort(settings.effort);
      if (settings.keepWeights !== keepWeights || settings.lessData !== lessData) engine.setWeights(weights());
    },
    allowDownloads(allowed) {
      allowedNow = allowed;
      engine.setWeights(weights());
      if (allowed) store.dispatch({ type: 'notice_dismissed', code: 'big_download' });
    },
    chooseModel(model) {
      store.dispatch({ type: 'model_chosen', model });
      return store.state().settings;
    },
    askStorage() {
      engine.askStorage();
    },
    clearStorage() {
      engine.clearStorage();
    },
    diagnostics: () => engine.diagnostics(),
  };
}
