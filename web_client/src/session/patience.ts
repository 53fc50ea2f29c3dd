/** How long the server may be silent while it owes something, before the connection counts as lost. */

/** What the client waits for: an answer that costs the server no work worth naming, or a step of a turn. */
export type Owed = 'reply' | 'step';

/**
 * A laptop that slept or changed its network hears of the dead connection minutes later, if ever. A reply is two seconds of pings at
 * most, a step may stand in a long queue.
 */
export const PATIENCE_S: Readonly<Record<Owed, number>> = { reply: 10, step: 60 };

/**
 * Counts seconds that were really waited. They are told by `tick` and not read from a clock: a thread that was blocked for a minute, by
 * wasm or by sleep, could not hear an answer that may lie there, so that minute counts as one second.
 */
export class Patience {
  private owed: Owed | null = null;
  private waited = 0;

  /** Something arrived, or went out after all. */
  heard(): void {
    this.waited = 0;
  }

  /** A second has passed in which `owed` was waited for. Returns whether it was the last one. */
  tick(owed: Owed | null): boolean {
    this.waited = owed === this.owed ? this.waited + 1 : 0;
    this.owed = owed;
    return owed !== null && this.waited >= PATIENCE_S[owed];
  }
}
