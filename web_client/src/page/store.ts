/** The one place that holds the page's state. */
import { reduce, type PageEvent, type State } from './state';

export interface Store {
  state(): State;
  dispatch(event: PageEvent): void;
  /** Called after each change of the state. */
  subscribe(listener: () => void): void;
}

export function createStore(first: State): Store {
  let state = first;
  const listeners: (() => void)[] = [];
  return {
    state: () => state,
    dispatch(event) {
      const next = reduce(state, event);
      if (next === state) return;
      state = next;
      for (const listener of listeners) listener();
    },
    subscribe(listener) {
      listeners.push(listener);
    },
  };
}
