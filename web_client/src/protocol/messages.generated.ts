/* Generated from protocol/schemas/messages.schema.json; mend with `npm run generate`. */

export type Message = ClientMessage | ServerMessage;
export type ClientMessage = Hello | Open | ReportMessage | Turn | Cancel | Adopt | Close;
export type Split = 'auto' | number;
export type ServerMessage = Welcome | Queued | Plan | Done | Error;

/**
 * First message of a client.
 */
export interface Hello {
  type: 'hello';
  protocol: number;
  agent: string;
  model: string | null;
  bundle: string | null;
}
/**
 * Reserve a session.
 */
export interface Open {
  type: 'open';
  client: Report;
  split: Split;
  wire: 'float16' | 'float32';
  max_tokens: number;
  expected_prompt_tokens: number;
  /**
   * Present where the client can take the session up again: null for a new session, or the one to go on with.
   */
  resume?: {
    session: string;
    token: string;
    turn: number | null;
    position: number;
  } | null;
  /**
   * Present where the client knows `queued`: whether it wants to wait where there is no room.
   */
  queue?: boolean;
}
/**
 * What a client can do; times in milliseconds for one block.
 */
export interface Report {
  backend: 'webgpu' | 'wasm' | 'cpu' | 'none';
  variant: 'float32' | 'float16' | 'int8' | 'int4' | 'int4f16';
  blocks_ready: number;
  decode_ms: number | null;
  prefill_ms: number | null;
  prefill_rows: number;
  memory_bytes: number | null;
  effort: number | null;
  /**
   * Whether further blocks are on their way to this client; true if absent.
   */
  more_blocks?: boolean;
}
/**
 * Something changed; plan again. Between turns, or in one.
 */
export interface ReportMessage {
  type: 'report';
  client: Report;
  split: Split;
  expected_prompt_tokens: number;
}
/**
 * Begin a turn.
 */
export interface Turn {
  type: 'turn';
  turn: number;
  start: number;
  prompt_tokens: number;
  max_tokens: number;
  sampling: Sampling;
  /**
   * @maxItems 8
   */
  stop: string[];
  /**
   * @maxItems 262144
   */
  seen_ids: number[];
}
export interface Sampling {
  temperature: number;
  top_p: number;
  top_k: number;
  min_p: number;
  repetition_penalty: number;
  seed: number | null;
}
/**
 * End a turn early.
 */
export interface Cancel {
  type: 'cancel';
  turn: number;
}
/**
 * The plan that came within this turn is followed from now on.
 */
export interface Adopt {
  type: 'adopt';
  turn: number;
}
/**
 * End the session.
 */
export interface Close {
  type: 'close';
}
/**
 * Answer to hello.
 */
export interface Welcome {
  type: 'welcome';
  protocol: number;
  agent: string;
  model: string;
  bundle: string;
  blocks: number;
  hidden_size: number;
  vocab_size: number;
  sla: {
    ttft_ms: number;
    tpot_ms: number;
  };
  limits: {
    max_context: number;
    max_rows: number;
    max_message_bytes: number;
    idle_timeout_s: number;
  };
}
/**
 * There is no room yet: the place in the queue, 1 being next.
 */
export interface Queued {
  type: 'queued';
  turn: number | null;
  place: number;
}
/**
 * Answer to open and report, or a new split within a turn.
 */
export interface Plan {
  type: 'plan';
  turn: number | null;
  session: string;
  split: number;
  wire: 'float16' | 'float32';
  max_tokens: number;
  position: number;
  feasible: boolean;
  reason: string;
  bound: 'ttft' | 'tpot' | 'memory' | 'effort' | 'blocks_ready' | 'model' | 'backend' | 'forced';
  saved: {
    block_steps: number;
    server_time: number;
  };
  predicted: {
    ttft_ms: number;
    tpot_ms: number;
    server_ms: number;
  };
  rtt_ms: number;
  /**
   * In the answer to an `open` with `resume`: what the next resume needs, and what the client has missed.
   */
  resume?: {
    token: string;
    grace_s: number;
    turn: number;
    prompt_end: number;
    /**
     * @maxItems 262144
     */
    tokens: number[];
  };
}
/**
 * A turn has ended.
 */
export interface Done {
  type: 'done';
  turn: number;
  finish_reason: 'stop' | 'stop_string' | 'length' | 'cancelled';
  stop_string: string | null;
  tokens: number;
  position: number;
  stats: {
    ttft_ms: number | null;
    tpot_ms: number | null;
    queue_ms: number;
    server_blocks_run: number;
    server_blocks_saved: number;
    server_ms_run: number;
    server_ms_saved: number;
    rtt_ms: number;
  };
}
/**
 * Something cannot be done; the message says what to do.
 */
export interface Error {
  type: 'error';
  code: string;
  message: string;
  fatal: boolean;
  turn: number | null;
  expected_position: number | null;
}
