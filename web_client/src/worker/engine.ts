/**
 * The engine: connects with what is there (chat works before any weight has arrived), answers, mends what breaks in the middle of an answer,
 * and has the plan made again between turns.
 */
import type { Diagnostics, EngineEvent, EngineOptions, WeightChoice } from '../api';
import { ConnectionError, RuntimeError, SessionError, SplitLLMError } from '../protocol/errors';
import type { Done } from '../protocol/messages.generated';
import type { Work } from '../session/session';
import { Announcer, asSplitLLMError } from './announcer';
import { Answer } from './answer';
import type { Ask } from './answer';
import { Connection } from './connection';
import type { LocalModel } from './local';
import type { Model } from './model';
import { Serial } from './serial';
import { DeviceStorage } from './storage';
import { runTurn } from './turn';

const RECONNECT_PAUSES_MS = [200, 500, 1000, 2000, 4000, 4000, 4000];
const OFFLINE_PAUSE_MS = 1000;
/** Connections that may be lost one after the other without a token in between. */
const MOST_LOSSES = 5;
/** Refusals of a server that may take it, or another in its place, in a moment; and messages that were torn on their way. */
const PASSING: ReadonlySet<string> = new Set(['shutting_down', 'server_full', 'malformed_message']);

export class Engine {
  readonly storage: DeviceStorage;
  private readonly tell: Announcer;
  /** Answers and plans, one after the other. */
  private readonly serial = new Serial();
  private readonly connection: Connection;
  /** The blocks that the last work ran on. */
  private used: LocalModel | null = null;
  /** The answers that were asked for and are not finished. */
  private readonly open = new Map<number, Answer | null>();
  private readonly stopRequested = new Set<number>();

  constructor(
    private readonly options: EngineOptions,
    post: (event: EngineEvent) => void,
  ) {
    this.tell = new Announcer(post);
    this.storage = new DeviceStorage(options.weights ?? { keep: true, download: true }, this.tell);
    this.connection = new Connection(options, this.tell, this.storage, this.serial);
  }

  start(): void {
    this.connection.setPhase('connecting');
    void this.serial.run(async () => {
      try {
        await this.connection.connect();
      } catch (error) {
        this.fail(null, error);
      }
    });
  }

  ask(ask: Ask): void {
    this.open.set(ask.ask, null);
    void this.serial.run(async () => {
      try {
        await this.answer(ask);
      } catch (error) {
        this.fail(ask.ask, error);
      } finally {
        this.open.delete(ask.ask);
        this.stopRequested.delete(ask.ask);
      }
      if (this.options.split === 'auto' && this.connection.local?.learn() === true) await this.connection.replan();
    });
  }

  stop(ask: number): void {
    if (!this.open.has(ask)) return;
    this.stopRequested.add(ask);
    if (this.open.get(ask) != null) this.cancelTurn();
  }

  setEffort(effort: number | null): void {
    this.connection.effort = effort;
    void this.serial.run(() => this.connection.replan());
  }

  async setWeights(weights: WeightChoice): Promise<void> {
    this.connection.ladder?.allowDownloads(weights.download);
    await this.storage.choose(weights);
  }

  async diagnose(): Promise<void> {
    const { local, link } = this.connection;
    const gpu = local?.gpu ?? null;
    const diagnostics: Diagnostics = {
      adapter: gpu === null ? null : { vendor: gpu.vendor, architecture: gpu.architecture, shaderF16: gpu.shaderF16 },
      backend: local?.backend ?? 'none',
      split: link?.session.plan?.split ?? 0,
      blockRuns: local?.blocks.runs ?? [],
      kvLocations: (await local?.blocks.kvLocations()) ?? [],
      crossOriginIsolated: self.crossOriginIsolated,
      log: this.tell.log.lines,
    };
    this.tell.emit({ type: 'diagnostics', diagnostics });
  }

  close(): void {
    this.tell.mute();
    this.connection.close();
  }

  private async answer(ask: Ask): Promise<void> {
    await this.connection.connect();
    const model = this.connection.ladder?.model;
    if (model === undefined) return;
    const answer = new Answer(ask, model.codec);
    this.open.set(ask.ask, answer);
    const prompt = [...model.codec.encodeChat(ask.messages), ...answer.begun];
    const reason = await this.persist(answer, prompt, model);
    if (reason === null) {
      if (answer.ids.length > 0) throw new SessionError('bundle_changed', 'The server got another model in the middle of this answer; ask again.');
      await this.answer(ask);
      return;
    }
    const { rest, text } = answer.finish();
    if (rest !== '') this.tell.emit({ type: 'text', ask: ask.ask, text: rest });
    this.tell.emit({ type: 'finished', ask: ask.ask, text, finishReason: answer.stopped ? 'stop_string' : reason, stats: answer.stats });
  }

  /** Attempts until one ends, each from what was not seen yet. Returns why it ended, or null where another bundle has come. */
  private async persist(answer: Answer, prompt: readonly number[], model: Model): Promise<Done['finish_reason'] | null> {
    const { ask } = answer.ask;
    let losses = 0;
    let faults = 0;
    for (;;) {
      const known = answer.ids.length;
      try {
        return await this.attempt(answer, prompt);
      } catch (error) {
        const lost = this.connection.link?.alive !== true;
        // Who has stopped waits for nothing: the next question connects.
        if (lost && this.stopRequested.has(ask)) return 'cancelled';
        if (lost) losses = answer.ids.length > known ? 1 : losses + 1;
        // Each step down the ladder is worth another attempt, and there are few of them.
        else if (!(isOfBlocks(error) && this.connection.local !== null)) faults += 1;
        if (losses > MOST_LOSSES || faults > 1) throw error;
        await this.recover(error, ask);
      }
      // Ids of one bundle say nothing to another.
      if (this.connection.ladder?.model !== model) return null;
    }
  }

  /** Ask for what the answer still lacks, or go on with the turn in work. Returns why it ended. */
  private async attempt(answer: Answer, prompt: readonly number[]): Promise<Done['finish_reason']> {
    const { ask } = answer.ask;
    const missing = answer.ask.maxTokens - answer.ids.length;
    const { link } = this.connection;
    if (link === null) throw new ConnectionError('disconnected', 'The connection to the server was lost; ask again to reconnect.');
    // What came along with the answer to `open` may have been the turn's end already, which is still to be heard.
    const goesOn = link.session.state === 'turn' || link.hasNews;
    if (goesOn && this.stopRequested.has(ask)) this.cancelTurn();
    if (!goesOn && this.stopRequested.has(ask)) return 'cancelled';
    if (!goesOn && missing < 1) return 'length';
    const request = goesOn ? null : { prompt: [...prompt, ...answer.ids], maxTokens: missing, sampling: answer.sampling, stop: answer.stop };
    const { sentBytes, receivedBytes } = link;
    const done = await runTurn(
      link,
      request,
      (work) => answer.timed(work.ids.length, () => this.compute(work)),
      (plan) => {
        this.connection.adoptPlan(plan);
      },
      (ids) => {
        const text = answer.push(ids);
        if (text !== '') this.tell.emit({ type: 'text', ask, text });
        // The server sees most stop strings itself, but not one that two attempts wrote together.
        if (answer.stopped) this.cancelTurn();
      },
    );
    answer.count(done.stats, link.sentBytes - sentBytes, link.receivedBytes - receivedBytes);
    return done.finish_reason;
  }

  private cancelTurn(): void {
    const cancel = this.connection.link?.session.cancel() ?? null;
    if (cancel !== null) this.connection.link?.send(cancel);
  }

  private async compute(work: Work): ReturnType<LocalModel['run']> {
    const { local } = this.connection;
    // What has just come in their place, and holds fewer, is not to blame.
    if (local === null || local.blocks.ready < work.split) throw new RuntimeError('run_failed', 'The blocks here are gone; the server takes over.');
    this.used = local;
    return local.run(work.split, work.ids, work.span.start);
  }

  /** Mend what can be mended, or throw. */
  private async recover(error: unknown, ask: number): Promise<void> {
    this.tell.log.add(`answer broke off: ${asSplitLLMError(error).code}: ${asSplitLLMError(error).message}`);
    if (error instanceof ConnectionError || this.connection.link?.alive !== true) {
      await this.reconnect(ask);
    } else if (error instanceof SessionError && error.code === 'not_finite' && this.connection.wire === 'float16') {
      // Some models' hidden states outgrow float16.
      this.connection.wire = 'float32';
      this.tell.notice('wire_widened', 'The hidden states of this model do not fit float16, so they now travel as float32.');
      this.connection.link.close();
      await this.connection.connect();
    } else if (isOfBlocks(error)) {
      if (this.used !== null) this.connection.ladder?.stepDown(this.used, error);
      await this.connection.replan();
    } else {
      throw error;
    }
  }

  /** A server that restarts is away for some seconds; a browser without a network may be in a tunnel, and says nothing of the server. */
  private async reconnect(ask: number): Promise<void> {
    for (let failures = 0; !this.stopRequested.has(ask); ) {
      try {
        await this.connection.connect();
        return;
      } catch (error) {
        if (!(error instanceof ConnectionError || (error instanceof SplitLLMError && PASSING.has(error.code)))) throw error;
        const pause = isOffline() ? OFFLINE_PAUSE_MS : RECONNECT_PAUSES_MS[failures++];
        if (pause === undefined) throw error;
        await new Promise((resolve) => setTimeout(resolve, pause));
      }
    }
  }

  private fail(ask: number | null, error: unknown): void {
    this.tell.fail(ask, error);
    if (this.connection.link?.alive !== true) this.connection.link?.session.close(); // nobody waits for its answer any more
    if (!this.connection.connected) this.connection.setPhase('disconnected');
  }
}

/** Node has no such word. */
function isOffline(): boolean {
  return (globalThis as { navigator?: { onLine?: boolean } }).navigator?.onLine === false;
}

/** Whether the blocks here are to blame, so that the answer goes on without them. */
function isOfBlocks(error: unknown): error is SplitLLMError {
  return error instanceof RuntimeError || (error instanceof SessionError && error.code === 'not_finite');
}
