/** What a person can do, as one object: each action changes the state and tells the engine. */
import type { Command, Diagnostics, EngineEvent, EngineOptions } from '../api';
import type { EngineHandle } from './engine';
import type { Settings } from './settings';
import { messagesFor, openAnswer } from './state';
import type { Store } from './store';

export interface Chat {
  send(question: string): void;
  /** Ask the last question again. */
  retry(): void;
  stop(): void;
  clear(): void;
  reconnect(): void;
  dismiss(code: string): void;
  configure(settings: Settings): void;
  diagnostics(): Promise<Diagnostics>;
}

const DIAGNOSTICS_TIMEOUT_MS = 10_000;

export function createChat(store: Store, options: EngineOptions, startEngine: () => EngineHandle): Chat {
  let engine = start();
  let diagnosed: ((diagnostics: Diagnostics) => void)[] = [];

  function start(): EngineHandle {
    const fresh = startEngine();
    fresh.listen(receive);
    fresh.post({ type: 'connect', options });
    return fresh;
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

  /** Runs after the state holds the question; an engine that failed is started again first. */
  function ask(number: number): void {
    if (store.state().engineFailure !== null) restart();
    const state = store.state();
    const { temperature, seed, maxTokens } = state.settings;
    post({
      type: 'ask',
      ask: number,
      messages: messagesFor(state),
      sampling: { temperature, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1, seed },
      maxTokens,
      stop: [],
    });
  }

  function stop(): void {
    const answer = openAnswer(store.state());
    if (answer === null) return;
    post({ type: 'stop', ask: answer.ask });
    store.dispatch({ type: 'stop_pressed' });
  }

  return {
    send(question) {
      if (question.trim() === '' || openAnswer(store.state()) !== null) return;
      const number = store.state().lastAsk + 1;
      store.dispatch({ type: 'asked', ask: number, question: question.trim() });
      ask(number);
    },
    retry() {
      if (store.state().turns.length === 0 || openAnswer(store.state()) !== null) return;
      const number = store.state().lastAsk + 1;
      store.dispatch({ type: 'asked_again', ask: number });
      ask(number);
    },
    stop,
    clear() {
      stop();
      store.dispatch({ type: 'chat_cleared' });
    },
    reconnect: restart,
    dismiss(code) {
      store.dispatch({ type: 'notice_dismissed', code });
    },
    configure(settings) {
      store.dispatch({ type: 'settings_changed', settings });
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
