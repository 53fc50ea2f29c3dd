/**
 * The one interface between what people see (page/) and what runs the model (worker/): tagged messages, both ways.
 * Everything heavy (WebSocket, tokenizer, weights, WebGPU) lives behind it.
 */

export type Backend = 'webgpu' | 'wasm' | 'none';
export type Variant = 'float32' | 'float16' | 'int8' | 'int4' | 'int4f16';
export type Wire = 'float16' | 'float32';

export interface EngineOptions {
  /** Origin of the server, for example `http://127.0.0.1:8000`. */
  readonly server: string;
  /** The name of one of its models; left out or null for its first. */
  readonly model?: string | null;
  /** Number of blocks to run here, or `auto` to let the planner choose. */
  readonly split: 'auto' | number;
  /** `auto` tries WebGPU, then wasm, then none. */
  readonly backend: 'auto' | Backend;
  /** `auto` takes the smallest variant that this backend runs well. */
  readonly variant: 'auto' | Variant;
  readonly wire: Wire;
  /** Largest share of the model's blocks that may run here, 0 to 1; null for as many as the planner wants. */
  readonly effort: number | null;
  /** Of `splitllm key`, for a server that wants one. Whoever can read the page's script can read it, too. */
  readonly apiKey?: string;
  /** What `splitllm sign --new` printed; of several, one must have signed the model. Left out, every model is taken; an empty list is refused. */
  readonly trustedKey?: string | readonly string[];
  /** Keep and download, if it is missing. */
  readonly weights?: WeightChoice;
}

/** What a person wants done with the model's weights. */
export interface WeightChoice {
  /** Verified files stay in the browser's storage for the next visit. */
  readonly keep: boolean;
  /**
   * More of the model may be downloaded; with `ask`, 100 MB or more only once it is `true`: until then such a download is paused, and a
   * notice says its size. Without it, what is kept here runs, and the server runs the rest.
   */
  readonly download: boolean | 'ask';
}

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
}

export interface Sampling {
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly seed: number | null;
}

/** @internal */
export type Command =
  | { readonly type: 'connect'; readonly options: EngineOptions }
  /** Answer the conversation; `ask` is this answer's number, chosen by the page, increasing. */
  | {
      readonly type: 'ask';
      readonly ask: number;
      readonly messages: readonly ChatMessage[];
      /** What the answer begins with already, when one that was cut short goes on. */
      readonly begin?: string;
      readonly sampling: Sampling;
      readonly maxTokens: number;
      readonly stop: readonly string[];
    }
  | { readonly type: 'stop'; readonly ask: number }
  /** Another `EngineOptions.effort`; it holds once no answer is under way. */
  | { readonly type: 'effort'; readonly effort: number | null }
  /** Another `EngineOptions.weights`; it holds at once. */
  | { readonly type: 'weights'; readonly weights: WeightChoice }
  /** Ask for a `storage` event. */
  | { readonly type: 'storage' }
  /** Remove all weights that are kept; a `storage` event follows. What runs goes on, from memory. */
  | { readonly type: 'clear_storage' }
  /** Ask for a `diagnostics` event. */
  | { readonly type: 'diagnose' }
  /** End the session at the server, which else waits for this client to come back; nothing follows. */
  | { readonly type: 'close' };

export type Phase = 'connecting' | 'downloading' | 'paused' | 'compiling' | 'measuring' | 'ready' | 'disconnected';

export interface SplitState {
  /** The name that the server gives it. */
  readonly model: string;
  readonly split: number;
  readonly blocks: number;
  readonly backend: Backend;
  readonly variant: Variant;
  readonly wire: Wire;
  /** The planner's sentence. */
  readonly reason: string;
  readonly feasible: boolean;
  /** Share of all blocks times rows that run here, 0 to 1; not the same as time. */
  readonly savedBlockSteps: number;
  /** Share of the server's time saved, 0 to 1. */
  readonly savedServerTime: number;
  readonly rttMs: number;
  readonly predictedTtftMs: number;
  readonly predictedTpotMs: number;
}

export interface AnswerStats {
  readonly tokens: number;
  /** Milliseconds from the question to the first token, as seen here. */
  readonly ttftMs: number | null;
  /** Milliseconds per token after the first, as seen here; null of fewer than two, and where all were read at once. */
  readonly tpotMs: number | null;
  readonly serverBlocksRun: number;
  readonly serverBlocksSaved: number;
  /** Milliseconds of the server's engine that the answer took, and what it would have taken beyond that alone; estimates. */
  readonly serverMsRun: number;
  readonly serverMsSaved: number;
  /** Milliseconds that the blocks here took per token after the prompt, as seen here; null when none ran. */
  readonly browserTpotMs: number | null;
  /** Bytes of messages and frames over the wire. */
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

/** What is kept of models in this browser. */
export interface StorageState {
  /** `opfs` and `cache` outlast the page, `memory` does not. */
  readonly kind: 'opfs' | 'cache' | 'memory';
  /** Bytes of the model that is served now. */
  readonly bytes: number;
  /** Bytes of other models and former versions; they go by themselves when room is needed. */
  readonly otherBytes: number;
  /** Bytes of downloads that are not complete. */
  readonly partialBytes: number;
  /** Bytes that the browser still has room for; null where it does not say. */
  readonly freeBytes: number | null;
}

export type FinishReason = 'stop' | 'stop_string' | 'length' | 'cancelled';

export interface Diagnostics {
  /** Null when there is no WebGPU adapter or it is not used. */
  readonly adapter: { readonly vendor: string; readonly architecture: string; readonly shaderF16: boolean } | null;
  readonly backend: Backend;
  readonly split: number;
  /** How many times each block ran here, by block index. */
  readonly blockRuns: readonly number[];
  /** Where the keys are of each block that has run, read back to see that they are there: `gpu-buffer` or `cpu`. */
  readonly kvLocations: readonly string[];
  readonly crossOriginIsolated: boolean;
  /** Lines for a bug report. */
  readonly log: readonly string[];
}

export type EngineEvent =
  /** What is going on; the byte counts are there while downloading. */
  | { readonly type: 'phase'; readonly phase: Phase; readonly doneBytes: number; readonly totalBytes: number; readonly blocksReady: number }
  /** The server is full: place in its queue, 1 being next; null when it waits no more. */
  | { readonly type: 'queued'; readonly place: number | null }
  | { readonly type: 'split'; readonly state: SplitState }
  /** One plain sentence a person should see, such as a fall back to wasm. */
  | { readonly type: 'notice'; readonly code: string; readonly sentence: string }
  /** More text of answer `ask`. */
  | { readonly type: 'text'; readonly ask: number; readonly text: string }
  /** The answer is complete; `text` is all of it, with what it began with (a stop string is cut off). */
  | { readonly type: 'finished'; readonly ask: number; readonly text: string; readonly finishReason: FinishReason; readonly stats: AnswerStats }
  /** An answer failed (`ask` set) or the engine cannot go on (`ask` null). */
  | { readonly type: 'failed'; readonly ask: number | null; readonly code: string; readonly sentence: string }
  | { readonly type: 'storage'; readonly state: StorageState }
  | { readonly type: 'diagnostics'; readonly diagnostics: Diagnostics };
