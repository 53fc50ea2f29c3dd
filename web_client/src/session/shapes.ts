/** What goes into the client's side of a session, and what comes out of it. */
import type { SessionError } from '../protocol/errors';
import type { Frame } from '../protocol/frame';
import type { ClientMessage, Done, Plan, Sampling, Turn, Welcome } from '../protocol/messages.generated';
import type { Span } from './span';

/** Run the embedding and the blocks `[0, split)` on these ids. */
export interface Work {
  readonly turn: number;
  /** Number of the plan it is for; what is computed under a former plan is not sent. */
  readonly plan: number;
  readonly split: number;
  readonly span: Span;
  readonly ids: readonly number[];
  /** How many of the rows, counted from the last, the server wants. */
  readonly rowsToSend: number;
}

export type Happening =
  | { readonly type: 'welcomed'; readonly welcome: Welcome }
  /** The server is full: place in its queue, 1 being next. It goes on by itself. */
  | { readonly type: 'queued'; readonly place: number }
  | { readonly type: 'planned'; readonly plan: Plan }
  /** A new plan within the turn: send `message`, then `frames`; hidden states come from `nextWork` as always. */
  | { readonly type: 'replanned'; readonly plan: Plan; readonly message: ClientMessage; readonly frames: readonly Frame[] }
  /** The session goes on over a new connection: these tokens were missed; send `message`, if any, then `frames`. */
  | { readonly type: 'resumed'; readonly plan: Plan; readonly ids: readonly number[]; readonly message: Turn | null; readonly frames: readonly Frame[] }
  | { readonly type: 'tokens'; readonly ids: readonly number[] }
  /** The turn is over; `failure` is set when it ended because this client had to give it up. */
  | { readonly type: 'done'; readonly done: Done; readonly failure: SessionError | null }
  /** The server refused what `of` names; the session goes on. */
  | { readonly type: 'refused'; readonly of: 'open' | 'report' | 'turn'; readonly error: SessionError }
  /** The session is over. */
  | { readonly type: 'ended'; readonly error: SessionError }
  /** A turn must be given up: send this, and wait for `done`. */
  | { readonly type: 'give_up'; readonly message: ClientMessage }
  | { readonly type: 'nothing' };

export interface TurnRequest {
  readonly prompt: readonly number[];
  readonly maxTokens: number;
  readonly sampling: Sampling;
  readonly stop: readonly string[];
}

/** What begins a turn: with split 0 the ids go along at once, else the hidden states come from `nextWork`. */
export interface TurnStart {
  readonly message: Turn;
  readonly frames: readonly Frame[];
}

/** The turn in work. */
export interface RunningTurn {
  readonly number: number;
  /** What it began with, in case that the server never heard of it. */
  readonly message: Turn;
  /** The rows `[start, promptEnd)` go up as a prompt does: the prompt, or after a new plan within the turn all it asks for. */
  start: number;
  promptEnd: number;
  readonly maxTokens: number;
  tokens: number;
  cancelled: boolean;
  failure: SessionError | null;
}
