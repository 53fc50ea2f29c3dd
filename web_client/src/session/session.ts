/**
 * The client's side of one session (PROTOCOL.md, sections 3 to 5), without a socket, a runtime or a clock.
 *
 *   new ──hello──▶ greeting ──welcome──▶ greeted ──open──▶ planning ──plan──▶ idle ──begin──▶ turn ──done──▶ idle
 *                                                              ▲   (report)     │
 *                                                              └────────────────┘
 *
 * Within a turn a new plan may come; the turn then goes on under it.
 *
 * What is to be sent comes out of the methods; what arrives goes into `receive`, and what that means comes out as a
 * `Happening`. What is to be computed is asked for with `nextWork`: it is what the client knows and has not computed yet,
 * so a prompt, a token, a catch-up after the split grew and a cancel need no cases of their own.
 */
import { ProtocolError, SessionError } from '../protocol/errors';
import type { Frame } from '../protocol/frame';
import type { ClientMessage, Done, Error as ServerError, Hello, Open, Plan, Report, Sampling, ServerMessage, Split, Turn, Welcome } from '../protocol/messages.generated';
import { inWireDtype, isFinite, lastRows } from './hidden';
import type { Hidden } from './hidden';
import type { Owed } from './patience';
import { chunks, commonPrefix, rowsPerFrame, sizeOf } from './span';
import type { Span } from './span';

export const PROTOCOL_VERSION = 1;

export type State = 'new' | 'greeting' | 'greeted' | 'planning' | 'idle' | 'turn' | 'closed';

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
  | { readonly type: 'planned'; readonly plan: Plan }
  /** A new plan within the turn: send `message`, then `frames`; hidden states come from `nextWork` as always. */
  | { readonly type: 'replanned'; readonly plan: Plan; readonly message: ClientMessage; readonly frames: readonly Frame[] }
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

interface RunningTurn {
  readonly number: number;
  /** The rows `[start, promptEnd)` go up as a prompt does: the prompt, or after a new plan within the turn all it asks for. */
  start: number;
  promptEnd: number;
  readonly maxTokens: number;
  tokens: number;
  cancelled: boolean;
  failure: SessionError | null;
}

const NOTHING: Happening = { type: 'nothing' };

export class ClientSession {
  #state: State = 'new';
  #welcome: Welcome | null = null;
  #plan: Plan | null = null;
  #plans = 0;
  #turn: RunningTurn | null = null;
  #lastTurn = 0;
  #latestPromptRows = 0;
  /** Every id of the conversation that this client knows. */
  #ids: number[] = [];
  /** Positions `[0, n)` of `#ids` whose keys and values the server holds. */
  #serverLength = 0;
  /** The same for the client's blocks. */
  #clientLength = 0;

  get state(): State {
    return this.#state;
  }

  get plan(): Plan | null {
    return this.#plan;
  }

  get welcome(): Welcome | null {
    return this.#welcome;
  }

  /** Rows of the latest prompt that the server did not hold yet: what the next may well have, too. 0 before the first. */
  get latestPromptRows(): number {
    return this.#latestPromptRows;
  }

  /** What the server has to send next, or null while it is this client's move. */
  get owed(): Owed | null {
    switch (this.#state) {
      case 'greeting':
      case 'planning':
        return 'reply';
      case 'turn':
        if (this.#turn?.cancelled === true) return 'reply';
        return this.nextWork() === null ? 'step' : null;
      case 'new':
      case 'greeted':
      case 'idle':
      case 'closed':
        return null;
    }
  }

  hello(agent: string, model: string | null, bundle: string | null): Hello {
    this.#move(['new'], 'greeting');
    return { type: 'hello', protocol: PROTOCOL_VERSION, agent, model, bundle };
  }

  open(client: Report, split: Split, wire: Open['wire'], maxTokens: number, expectedPromptTokens: number): Open {
    this.#move(['greeted'], 'planning');
    return { type: 'open', client, split, wire, max_tokens: maxTokens, expected_prompt_tokens: expectedPromptTokens };
  }

  report(client: Report, split: Split, expectedPromptTokens: number): ClientMessage {
    this.#move(['idle'], 'planning');
    return { type: 'report', client, split, expected_prompt_tokens: expectedPromptTokens };
  }

  close(): ClientMessage {
    this.#state = 'closed';
    return { type: 'close' };
  }

  /** Keys and values of the client's blocks are gone (a new runner, say); they will be computed again. */
  forgetClientKv(): void {
    this.#clientLength = 0;
  }

  /** Throws `context_overflow` when the prompt does not fit the session. */
  begin(request: TurnRequest): TurnStart {
    const plan = this.#agreed();
    const { prompt } = request;
    const room = plan.max_tokens - prompt.length;
    if (prompt.length < 1) throw new SessionError('turn_refused', 'There is nothing to answer; write a message first.');
    if (room < 1) {
      throw new SessionError('context_overflow', `This conversation has ${prompt.length} tokens and the session holds ${plan.max_tokens}; start a new chat or shorten the message.`);
    }
    this.#move(['idle'], 'turn');
    const kept = commonPrefix(this.#ids, prompt);
    // At least one row must go up, for the server to have something to answer.
    const start = Math.min(kept, this.#serverLength, prompt.length - 1);
    this.#clientLength = Math.min(this.#clientLength, start);
    this.#ids = [...prompt];
    this.#serverLength = start;
    this.#latestPromptRows = prompt.length - start;
    this.#lastTurn += 1;
    const turn: RunningTurn = { number: this.#lastTurn, start, promptEnd: prompt.length, maxTokens: Math.min(request.maxTokens, room), tokens: 0, cancelled: false, failure: null };
    this.#turn = turn;
    const message: Turn = {
      type: 'turn',
      turn: turn.number,
      start,
      prompt_tokens: prompt.length - start,
      max_tokens: turn.maxTokens,
      sampling: request.sampling,
      stop: [...request.stop],
      seen_ids: request.sampling.repetition_penalty === 1 ? [] : [...new Set(prompt)],
    };
    return { message, frames: plan.split === 0 ? this.#idFrames(turn) : [] };
  }

  /** `cancel` for the turn under way, or null when there is none to cancel. */
  cancel(): ClientMessage | null {
    const turn = this.#turn;
    if (turn === null || turn.cancelled) return null;
    turn.cancelled = true;
    return { type: 'cancel', turn: turn.number };
  }

  /** What to compute now, or null when the next move is the server's. */
  nextWork(): Work | null {
    const turn = this.#turn;
    const { split } = this.#agreed();
    if (turn === null || turn.cancelled || split === 0 || turn.tokens >= turn.maxTokens) return null;
    const next = this.#clientLength;
    // Rows before `start` are the server's already: this client catches up on them and sends nothing.
    const stop = next < turn.start ? turn.start : this.#ids.length;
    const span = { start: next, end: Math.min(next + this.#chunkRows(), stop) };
    if (sizeOf(span) === 0) return null;
    return { turn: turn.number, plan: this.#plans, split, span, ids: this.#ids.slice(span.start, span.end), rowsToSend: this.#rowsToSend(turn, span) };
  }

  /**
   * The frame that carries what `work` gave, or null when the server wants none of it.
   * Throws `not_finite` when the hidden states cannot travel.
   */
  computed(work: Work, hidden: Hidden): Frame | null {
    if (work.plan !== this.#plans) return null; // its keys and values belong to blocks that may not run here any more
    this.#clientLength = work.span.end;
    const plan = this.#agreed();
    const turn = this.#turn;
    if (turn?.number !== work.turn || turn.cancelled || work.rowsToSend === 0) return null;
    const columns = this.#greeted().hidden_size;
    const values = inWireDtype(lastRows(hidden, work.rowsToSend, columns), plan.wire);
    if (!isFinite(values)) throw notFinite(hidden, plan.wire);
    return { kind: 'hidden', turn: turn.number, position: work.span.end - work.rowsToSend, rows: work.rowsToSend, columns, ...values };
  }

  receive(message: ServerMessage | Frame): Happening {
    if (this.#state === 'closed') return NOTHING;
    if ('kind' in message) return this.#receiveToken(message);
    switch (message.type) {
      case 'welcome':
        return this.#receiveWelcome(message);
      case 'plan':
        return this.#receivePlan(message);
      case 'done':
        return this.#receiveDone(message);
      case 'error':
        return this.#receiveError(message);
    }
  }

  #receiveWelcome(welcome: Welcome): Happening {
    this.#expect('greeting', 'welcome');
    this.#state = 'greeted';
    this.#welcome = welcome;
    return { type: 'welcomed', welcome };
  }

  #receivePlan(plan: Plan): Happening {
    const turn = this.#turn;
    if (plan.turn === null || turn?.number !== plan.turn) this.#expect('planning', 'plan');
    const { blocks } = this.#greeted();
    if (plan.split > blocks) throw new ProtocolError('malformed_message', `The server plans ${plan.split} blocks of ${blocks}; report this to its operator.`);
    // Blocks that were not run here until now know nothing of the conversation.
    if (plan.split !== this.#plan?.split) this.#clientLength = 0;
    this.#serverLength = Math.min(plan.position, this.#ids.length);
    this.#plan = plan;
    this.#plans += 1;
    if (plan.turn === null || turn === null) {
      this.#state = 'idle';
      return { type: 'planned', plan };
    }
    turn.start = this.#serverLength;
    turn.promptEnd = this.#ids.length;
    return { type: 'replanned', plan, message: { type: 'adopt', turn: turn.number }, frames: plan.split === 0 && !turn.cancelled ? this.#idFrames(turn) : [] };
  }

  #receiveToken(frame: Frame): Happening {
    const turn = this.#turn;
    // A frame of a former turn was under way when that turn ended; one of a former position is a repeat.
    if (frame.kind !== 'token' || turn?.number !== frame.turn || frame.position + frame.rows <= this.#ids.length) return NOTHING;
    if (frame.position !== this.#ids.length) {
      throw new ProtocolError('position_gap', `The server sent a token for position ${frame.position} where ${this.#ids.length} was due; ask again.`);
    }
    const ids = [...frame.values];
    this.#ids.push(...ids);
    turn.tokens += ids.length;
    return { type: 'tokens', ids };
  }

  #receiveDone(done: Done): Happening {
    const turn = this.#turn;
    if (turn?.number !== done.turn) return NOTHING;
    this.#serverLength = Math.min(done.position, this.#ids.length);
    this.#turn = null;
    this.#state = 'idle';
    return { type: 'done', done, failure: turn.failure };
  }

  #receiveError(message: ServerError): Happening {
    const error = new SessionError(message.code, message.message);
    if (message.fatal) {
      this.#state = 'closed';
      this.#turn = null;
      return { type: 'ended', error };
    }
    if (message.turn !== null) return this.#receiveTurnError(message.turn, message.expected_position, error);
    if (this.#state !== 'planning') return NOTHING;
    const opened = this.#plan !== null;
    this.#state = opened ? 'idle' : 'greeted';
    return { type: 'refused', of: opened ? 'report' : 'open', error };
  }

  #receiveTurnError(number: number, expectedPosition: number | null, error: SessionError): Happening {
    const turn = this.#turn;
    if (turn?.number !== number) return NOTHING;
    if (expectedPosition !== null && SPEAKS_OF_A_FRAME.has(error.code)) {
      // The server waits for a better frame, and this client has none: what it sent is what it has.
      const message = this.cancel();
      if (message === null) return NOTHING;
      turn.failure = error;
      return { type: 'give_up', message };
    }
    // The turn was refused, or ended by a fault: what the server holds is not known, so the next turn begins at 0.
    this.#turn = null;
    this.#serverLength = 0;
    this.#state = 'idle';
    return { type: 'refused', of: 'turn', error };
  }

  #idFrames(turn: RunningTurn): Frame[] {
    return chunks({ start: turn.start, end: turn.promptEnd }, this.#chunkRows()).map((chunk) => ({
      kind: 'ids',
      dtype: 'int32',
      turn: turn.number,
      position: chunk.start,
      rows: sizeOf(chunk),
      columns: 1,
      values: Int32Array.from(this.#ids.slice(chunk.start, chunk.end)),
    }));
  }

  #rowsToSend(turn: RunningTurn, span: Span): number {
    if (span.start < turn.start) return 0;
    const holdsEverything = this.#agreed().split === this.#greeted().blocks;
    if (!holdsEverything || span.start >= turn.promptEnd) return sizeOf(span);
    return span.end === turn.promptEnd ? 1 : 0;
  }

  #chunkRows(): number {
    const { split, wire } = this.#agreed();
    const { limits, hidden_size } = this.#greeted();
    return rowsPerFrame(limits, split === 0 ? 4 : hidden_size * (wire === 'float16' ? 2 : 4));
  }

  #greeted(): Welcome {
    if (this.#welcome === null) throw new SessionError('unexpected_message', 'The server has not answered yet; wait a moment.');
    return this.#welcome;
  }

  #agreed(): Plan {
    if (this.#plan === null) throw new SessionError('unexpected_message', 'The server has not made a plan yet; wait a moment.');
    return this.#plan;
  }

  #move(from: readonly State[], to: State): void {
    if (!from.includes(this.#state)) throw new SessionError('unexpected_message', `This cannot be done while the session is ${this.#state}; wait a moment.`);
    this.#state = to;
  }

  #expect(state: State, type: string): void {
    if (this.#state !== state) throw new ProtocolError('unexpected_message', `The server sent \`${type}\` while the session is ${this.#state}; reload the page.`);
  }
}

const SPEAKS_OF_A_FRAME: ReadonlySet<string> = new Set([
  'not_finite',
  'unknown_token',
  'wrong_shape',
  'wrong_dtype',
  'unexpected_frame',
  'position_gap',
  'position_overlap',
  'unknown_turn',
]);

function notFinite(hidden: Hidden, wire: Open['wire']): SessionError {
  if (wire === 'float16' && isFinite(hidden)) return new SessionError('not_finite', 'The hidden states do not fit float16; choose float32 for the wire.');
  return new SessionError('not_finite', 'The blocks that ran here gave numbers that are not finite; choose another backend or split 0.');
}
