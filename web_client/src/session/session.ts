/**
 * The client's side of one session (PROTOCOL.md, sections 3 to 5), without a socket, a runtime or a clock.
 *
 *   new ──hello──▶ greeting ──welcome──▶ greeted ──open──▶ planning ──plan──▶ idle ──begin──▶ turn ──done──▶ idle
 *                                                              ▲   (report)     │
 *                                                              └────────────────┘
 *
 * Within a turn a new plan may come; the turn then goes on under it. A lost connection leads from any state back to new (`lost`), with
 * all that is known: `open` then asks for the same session, and the answer is `planned` or, within a turn, `resumed`.
 *
 * What is to be sent comes out of the methods; what arrives goes into `receive`, and what that means comes out as a
 * `Happening`. What is to be computed is asked for with `nextWork`: it is what the client knows and has not computed yet,
 * so a prompt, a token, a catch-up after the split grew and a cancel need no cases of their own.
 */
import { ProtocolError, SessionError } from '../protocol/errors';
import type { Frame } from '../protocol/frame';
import type { ClientMessage, Done, Error as ServerError, Hello, Open, Plan, Queued, Report, ServerMessage, Split, Turn, Welcome } from '../protocol/messages.generated';
import { PROTOCOL_VERSION } from '../protocol/version';
import { inWireDtype, isFinite, lastRows } from './hidden';
import type { Hidden } from './hidden';
import type { Owed } from './patience';
import type { Happening, RunningTurn, TurnRequest, TurnStart, Work } from './shapes';
import { chunks, commonPrefix, rowsPerFrame, sizeOf } from './span';
import type { Span } from './span';

export type { Happening, TurnRequest, TurnStart, Work } from './shapes';

export type State = 'new' | 'greeting' | 'greeted' | 'planning' | 'idle' | 'turn' | 'closed';

const NOTHING: Happening = { type: 'nothing' };

export class ClientSession {
  #state: State = 'new';
  #welcome: Welcome | null = null;
  #plan: Plan | null = null;
  #plans = 0;
  #turn: RunningTurn | null = null;
  #lastTurn = 0;
  /** What takes the session up again after its connection was lost, if the server holds sessions. */
  #ticket: NonNullable<Plan['resume']> | null = null;
  #resuming = false;
  /** The server has no room for what was asked, and tells the place in its queue from time to time. */
  #queued = false;
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
        return 'reply';
      case 'planning':
        return this.#queued ? 'step' : 'reply';
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

  /** `queue`: wait where the server has no room, rather than be refused. */
  open(client: Report, split: Split, wire: Open['wire'], maxTokens: number, expectedPromptTokens: number, queue: boolean): Open {
    this.#move(['greeted'], 'planning');
    this.#queued = false;
    return { type: 'open', client, split, wire, max_tokens: maxTokens, expected_prompt_tokens: expectedPromptTokens, resume: this.#resume(), queue };
  }

  #resume(): NonNullable<Open['resume']> | null {
    this.#resuming = this.#ticket !== null;
    if (this.#ticket === null || this.#plan === null) return null;
    return { session: this.#plan.session, token: this.#ticket.token, turn: this.#turn?.number ?? null, position: this.#ids.length };
  }

  /** The connection is gone. Returns whether the session may go on over another one. */
  lost(): boolean {
    // Of a turn that was cancelled nobody wants to know how it went on.
    const held = this.#state !== 'closed' && this.#ticket !== null && this.#turn?.cancelled !== true;
    this.#state = held ? 'new' : 'closed';
    return held;
  }

  report(client: Report, split: Split, expectedPromptTokens: number): ClientMessage {
    this.#move(['idle'], 'planning');
    return { type: 'report', client, split, expected_prompt_tokens: expectedPromptTokens };
  }

  close(): ClientMessage {
    this.#state = 'closed';
    return { type: 'close' };
  }

  /** Keys and values of the client's blocks are gone (a new runner, say); they will be computed again, and work under way is not sent. */
  forgetClientKv(): void {
    this.#clientLength = 0;
    this.#plans += 1;
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
    const maxTokens = Math.min(request.maxTokens, room);
    const message: Turn = {
      type: 'turn',
      turn: this.#lastTurn,
      start,
      prompt_tokens: prompt.length - start,
      max_tokens: maxTokens,
      sampling: request.sampling,
      stop: [...request.stop],
      seen_ids: request.sampling.repetition_penalty === 1 ? [] : [...new Set(prompt)],
    };
    const turn: RunningTurn = { number: this.#lastTurn, message, start, promptEnd: prompt.length, maxTokens, tokens: 0, cancelled: false, failure: null };
    this.#turn = turn;
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
      case 'queued':
        return this.#receiveQueued(message);
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

  #receiveQueued({ turn, place }: Queued): Happening {
    if (turn === null) this.#expect('planning', 'queued');
    else if (this.#turn?.number !== turn) return NOTHING;
    this.#queued = true;
    return { type: 'queued', place };
  }

  #receivePlan(plan: Plan): Happening {
    const turn = this.#turn;
    if (plan.turn === null || turn?.number !== plan.turn) this.#expect('planning', 'plan');
    const { blocks } = this.#greeted();
    if (plan.split > blocks) throw new ProtocolError('malformed_message', `The server plans ${plan.split} blocks of ${blocks}; report this to its operator.`);
    // Blocks that were not run here until now know nothing of the conversation.
    if (plan.split !== this.#plan?.split) this.#clientLength = 0;
    this.#ids.push(...(this.#resuming ? (plan.resume?.tokens ?? []) : []));
    this.#serverLength = Math.min(plan.position, this.#ids.length);
    this.#plan = plan;
    this.#plans += 1;
    this.#ticket = plan.resume ?? this.#ticket;
    if (this.#resuming && turn !== null) return this.#goOn(turn, plan);
    this.#resuming = false;
    if (plan.turn === null || turn === null) {
      this.#state = 'idle';
      return { type: 'planned', plan };
    }
    turn.start = this.#serverLength;
    turn.promptEnd = this.#ids.length;
    // What the server wants anew is computed anew, to be sent.
    this.#clientLength = Math.min(this.#clientLength, turn.start);
    return { type: 'replanned', plan, message: { type: 'adopt', turn: turn.number }, frames: plan.split === 0 && !turn.cancelled ? this.#idFrames(turn) : [] };
  }

  /** The turn goes on where the server waits, or begins once more if the server never heard of it. */
  #goOn(turn: RunningTurn, plan: Plan): Happening {
    const { turn: heardOf, prompt_end: promptEnd, tokens: ids } = plan.resume ?? { turn: 0, prompt_end: 0, tokens: [] };
    this.#resuming = false;
    this.#state = 'turn';
    const again = heardOf === turn.number ? null : turn.message;
    turn.tokens += ids.length;
    turn.start = again?.start ?? this.#serverLength;
    turn.promptEnd = again === null ? promptEnd : again.start + again.prompt_tokens;
    this.#serverLength = turn.start;
    this.#clientLength = Math.min(this.#clientLength, turn.start);
    return { type: 'resumed', plan, ids, message: again, frames: plan.split === 0 ? this.#idFrames(turn) : [] };
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
    if (!turn.cancelled && done.tokens > turn.tokens) throw new ProtocolError('position_gap', 'A token of the server is missing; ask again.');
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
    if (this.#resuming) this.#forget();
    const opened = this.#plan !== null;
    this.#state = opened ? 'idle' : 'greeted';
    return { type: 'refused', of: opened ? 'report' : 'open', error };
  }

  /** There is nothing to go on with: the next session begins at 0. */
  #forget(): void {
    this.#resuming = false;
    this.#ticket = this.#plan = this.#turn = null;
    this.#ids = [];
    this.#serverLength = this.#clientLength = this.#lastTurn = 0;
    this.#plans += 1;
  }

  #receiveTurnError(number: number, expectedPosition: number | null, error: SessionError): Happening {
    const turn = this.#turn;
    if (turn?.number !== number) return NOTHING;
    if (expectedPosition !== null && !turn.cancelled && OUT_OF_STEP.has(error.code)) return { type: 'ended', error };
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

/** Frames got lost or out of order on their way; who connects again is told what the server waits for. */
const OUT_OF_STEP: ReadonlySet<string> = new Set(['position_gap', 'position_overlap', 'unknown_turn', 'unexpected_frame']);

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
