/**
 * Which turns some tab is answering. A Web Lock for each, because the browser lets go of it whatever becomes of the tab: closed,
 * reloaded or crashed.
 */
export interface Answering {
  /** This tab answers the turn, until what is returned is called. */
  hold(turn: string): () => void;
  /** The turns that a tab, be it this one, is answering. */
  now(): Promise<ReadonlySet<string>>;
  /** Settles when no tab is answering the turn, which may be at once. */
  over(turn: string): Promise<void>;
}

const PREFIX = 'splitllm-answer.';

/** Browsers have locks on https and localhost only; elsewhere no turn is known to be answered. */
export function answeringByLocks(locks: LockManager | undefined): Answering {
  return {
    hold(turn) {
      let release = (): void => undefined;
      const done = new Promise<void>((resolve) => {
        release = resolve;
      });
      void locks?.request(PREFIX + turn, () => done).catch(() => undefined);
      return release;
    },
    async now() {
      const { held = [] } = (await locks?.query().catch(() => undefined)) ?? {};
      return new Set(held.map(({ name = '' }) => name).filter((name) => name.startsWith(PREFIX)).map((name) => name.slice(PREFIX.length)));
    },
    async over(turn) {
      await locks?.request(PREFIX + turn, { mode: 'shared' }, () => undefined);
    },
  };
}
