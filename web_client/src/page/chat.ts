/** What a person can do with the answers of the open conversation: each action changes the state and tells the engine. */
import type { Command, Diagnostics, EngineEvent, EngineOptions, WeightChoice } from '../api';
import type { Turn } from './conversation';
import type { EngineHandle } from './engine';
import { newId } from './ids';
import type { Settings } from './settings';
import { messagesFor, openAnswer } from './state';
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
  /** Have the state say what is kept on this device. */
  askStorage(): void;
  /** Remove the model from this device; what runs goes on. */
  clearStorage(): void;
  diagnostics(): Promise<Diagnostics>;
}

const DIAGNOSTICS_TIMEOUT_MS = 10_000;

export function createChat(store: Store, options: EngineOptions, startEngine: () => EngineHandle, now: () => number = Date.now): Chat {
  let engine = start();
  let diagnosed: ((diagnostics: Diagnostics) => void)[] = [];

  function start(): EngineHandle {
    const fresh = startEngine();
    fresh.listen(receive);
    fresh.post({ type: 'connect', options: { ...options, effort: store.state().settings.effort, weights: weights() } });
    return fresh;
  }

  function weights(): WeightChoice {
    const { keepWeights, lessData } = store.state().settings;
    return { keep: keepWeights, download: !lessData };
  }

  function receive(event: EngineEvent): void {
    if (event.type === 'diagnostics') {
      for (const resolve of diagnosed) resolve(event.diagnostics);
      diagnosed = [];
    }
    store.dispatch(event);
  }

  function restart(): void {
    engine.close();
    store.dispatch({ type: 'engine_started' });
    engine = start();
  }

  function post(command: Command): void {
    engine.post(command);
  }

  /** Runs after the state holds the question as its last; an engine that failed is started again first. */
  function ask(begin: string): void {
    if (store.state().engineFailure !== null) restart();
    const state = store.state();
    const { temperature, topP, seed, maxTokens } = state.settings;
    post({
      type: 'ask',
      ask: state.lastAsk,
      messages: messagesFor(state),
      begin,
      sampling: { temperature, topP, topK: 0, minP: 0, repetitionPenalty: 1, seed },
      maxTokens,
      stop: [],
    });
  }

  function askAfter(parent: string | null, question: string, begin = ''): void {
    const number = store.state().lastAsk + 1;
    store.dispatch({ type: 'asked', ask: number, id: newId(), at: now(), parent, question, begin });
    ask(begin);
  }

  function stop(): void {
    const answer = openAnswer(store.state());
    if (answer === null) return;
    post({ type: 'stop', ask: answer.ask });
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
      if (settings.effort !== effort) post({ type: 'effort', effort: settings.effort });
      if (settings.keepWeights !== keepWeights || settings.lessData !== lessData) post({ type: 'weights', weights: weights() });
    },
    allowDownloads(allowed) {
      post({ type: 'weights', weights: { ...weights(), download: allowed } });
    },
    askStorage() {
      post({ type: 'storage' });
    },
    clearStorage() {
      post({ type: 'clear_storage' });
    },
    diagnostics() {
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          reject(new Error('The engine did not answer within 10 seconds; reload the page.'));
        }, DIAGNOSTICS_TIMEOUT_MS);
        diagnosed.push((diagnostics) => {
          clearTimeout(timer);
          resolve(diagnostics);
        });
        post({ type: 'diagnose' });
      });
    },
  };
}
