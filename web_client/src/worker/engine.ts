/**
 * The engine: connects, opens a session with what is there (chat works before any weight has arrived), lets blocks arrive in the
 * background, plans again between turns, and answers.
 */
import type { Diagnostics, EngineEvent, EngineOptions, Phase, WeightChoice, Wire } from '../api';
import { ConnectionError, RuntimeError, SessionError, SplitLLMError } from '../protocol/errors';
import type { Done, Plan, Report } from '../protocol/messages.generated';
import type { Work } from '../session/session';
import { Announcer, asSplitLLMError } from './announcer';
import { Answer } from './answer';
import type { Ask } from './answer';
import { Ladder } from './ladder';
import type { LadderHost } from './ladder';
import { ServerLink } from './link';
import type { LocalModel } from './local';
import { loadModel } from './model';
import type { Model } from './model';
import { Serial } from './serial';
import { splitState } from './split_state';
import { DeviceStorage } from './storage';
import { runTurn } from './turn';

const AGENT = 'splitllm-web';
/** Positions asked for: memory for all of them is reserved on both sides, and a chat of this length is a long one. */
const SESSION_TOKENS = 4096;
const FEWEST_SESSION_TOKENS = 256;
/** What a first question may have, with the template round it. */
const FIRST_PROMPT_TOKENS = 64;
const RECONNECT_PAUSES_MS = [200, 500, 1000, 2000, 4000, 4000, 4000];
/** Connections that may be lost one after the other without a token in between. */
const MOST_LOSSES = 5;
/** Refusals of a server that may take it, or another in its place, in a moment; and messages that were torn on their way. */
const PASSING: ReadonlySet<string> = new Set(['shutting_down', 'server_full', 'malformed_message']);
/** Refusals of a server that has no room now. */
const FULL: ReadonlySet<string> = new Set(['server_full', 'kv_exhausted']);

export class Engine {
  readonly storage: DeviceStorage;
  private readonly tell: Announcer;
  /** Answers and plans, one after the other. */
  private readonly serial = new Serial();
  /** The bundle and what of it runs here; null until the manifest is here, and while the server gets another bundle. */
  private ladder: Ladder | null = null;
  private link: ServerLink | null = null;
  /** The blocks that the last work ran on. */
  private used: LocalModel | null = null;
  /** Ends when the blocks of former bundles are gone. */
  private growth: Promise<void> = Promise.resolve();
  private wire: Wire;
  private effort: number | null;
  /** The answers that were asked for and are not finished. */
  private readonly open = new Map<number, Answer | null>();
  private readonly stopRequested = new Set<number>();

  constructor(
    private readonly options: EngineOptions,
    post: (event: EngineEvent) => void,
  ) {
    this.tell = new Announcer(post);
    this.wire = options.wire;
    this.effort = options.effort;
    this.storage = new DeviceStorage(options.weights ?? { keep: true, download: true }, this.tell);
  }

  start(): void {
    this.setPhase('connecting');
    void this.serial.run(async () => {
      try {
        await this.connect();
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
      if (this.options.split === 'auto' && this.local?.learn() === true) await this.replan();
    });
  }

  stop(ask: number): void {
    if (!this.open.has(ask)) return;
    this.stopRequested.add(ask);
    if (this.open.get(ask) != null) this.cancelTurn();
  }

  setEffort(effort: number | null): void {
    this.effort = effort;
    void this.serial.run(() => this.replan());
  }

  async setWeights(weights: WeightChoice): Promise<void> {
    this.ladder?.allowDownloads(weights.download);
    await this.storage.choose(weights);
  }

  async diagnose(): Promise<void> {
    const gpu = this.local?.gpu ?? null;
    const diagnostics: Diagnostics = {
      adapter: gpu === null ? null : { vendor: gpu.vendor, architecture: gpu.architecture, shaderF16: gpu.shaderF16 },
      backend: this.local?.backend ?? 'none',
      split: this.link?.session.plan?.split ?? 0,
      blockRuns: this.local?.blocks.runs ?? [],
      kvLocations: (await this.local?.blocks.kvLocations()) ?? [],
      crossOriginIsolated: self.crossOriginIsolated,
      log: this.tell.log.lines,
    };
    this.tell.emit({ type: 'diagnostics', diagnostics });
  }

  close(): void {
    this.tell.mute();
    this.link?.close();
    void this.ladder?.close();
  }

  // -- connecting -----------------------------------------------------------------------------------------------------

  /** Model, connection, session: whatever of them is missing. */
  private async connect(): Promise<void> {
    try {
      await this.connectToBundle();
    } catch (error) {
      if (!(error instanceof SessionError) || error.code !== 'bundle_mismatch') throw error;
      // The server has started again with another bundle.
      this.forgetBundle();
      await this.connectToBundle();
    }
  }

  private async connectToBundle(): Promise<void> {
    this.ladder ??= await this.loadModel();
    if (this.connected) return;
    // Blocks come before the connection where the session begins with them, because the server does not wait for a download.
    await this.ladder.prepare();
    const link = this.link?.alive === true ? this.link : await this.connectLink(this.ladder);
    await this.openSession(link, this.ladder);
    if (!this.ladder.begin()) this.setPhase(this.ladder.growing ? 'downloading' : 'ready');
  }

  private get local(): LocalModel | null {
    return this.ladder?.local ?? null;
  }

  /** A session is open, so what the page shows of a split is true. */
  private get connected(): boolean {
    return this.link?.alive === true && this.link.session.plan !== null;
  }

  /** Manifest, tokenizer and blocks of a bundle that the server has no more. */
  private forgetBundle(): void {
    this.tell.log.add('the server has another bundle');
    if (this.ladder !== null) this.growth = this.ladder.close();
    this.ladder = null;
  }

  private async connectLink({ model, growing }: Ladder): Promise<ServerLink> {
    if (!growing) this.setPhase('connecting');
    const former = this.link?.session;
    const onClose = (): void => {
      this.tell.log.add('disconnected');
      this.setPhase('disconnected');
    };
    const link = await ServerLink.connect(this.options, AGENT, model.identity, onClose, undefined, former?.lost() === true ? former : undefined);
    this.tell.log.add(`connected to ${link.welcome.agent}, ${link.welcome.model}, ${link.welcome.blocks} blocks`);
    link.onPlace = (place) => {
      this.tell.emit({ type: 'queued', place });
    };
    this.link = link;
    return link;
  }

  private async loadModel(): Promise<Ladder> {
    const model = await loadModel(this.options, [this.options.trustedKey ?? []].flat(), await this.storage.kept);
    const { name, blocks } = model.manifest.model;
    this.tell.log.add(`bundle ${name}, ${blocks} blocks, ${model.identity?.slice(0, 12) ?? 'not identified'}`);
    return new Ladder(model, this.options, this.ladderHost, this.growth, this.storage.download);
  }

  private get ladderHost(): LadderHost {
    const plan = (): Plan | null => this.link?.session.plan ?? null;
    return {
      tell: this.tell,
      get plan() {
        return plan();
      },
      forgetKv: () => this.link?.session.forgetClientKv(),
      replan: () => this.serial.run(() => this.replan()),
      progress: (phase, doneBytes, totalBytes, blocksReady) => {
        // Blocks arrive over HTTP, also while there is no session; the first may well arrive before there was one.
        const shown = this.link === null || this.connected ? phase : 'disconnected';
        this.tell.step({ type: 'phase', phase: shown, doneBytes, totalBytes, blocksReady });
      },
      settled: () => {
        this.setPhase(this.connected ? 'ready' : 'disconnected');
      },
    };
  }

  /** A smaller session at once is better than a large one later; who gets none waits for a large one. */
  private async openSession(link: ServerLink, ladder: Ladder): Promise<void> {
    try {
      await this.openLargest(link, ladder, false);
    } catch (error) {
      if (!(error instanceof SessionError && FULL.has(error.code))) throw error;
      await this.openLargest(link, ladder, true);
    }
  }

  private async openLargest(link: ServerLink, ladder: Ladder, queue: boolean): Promise<void> {
    const { max_context: most } = link.welcome.limits;
    let maxTokens = Math.min(most, ladder.model.manifest.model.max_context, SESSION_TOKENS);
    for (;;) {
      try {
        this.adoptPlan(
          await link.openSession({ report: this.report(ladder), split: ladder.split, wire: this.wire, maxTokens, expectedPromptTokens: this.expectedPromptTokens, queue }),
        );
        return;
      } catch (error) {
        if (error instanceof SessionError && error.code === 'resume_refused') continue; // then a new one
        const smaller = Math.floor(maxTokens / 2);
        if (!(error instanceof SessionError) || error.code !== 'kv_exhausted' || smaller < FEWEST_SESSION_TOKENS) throw error;
        maxTokens = smaller;
      }
    }
  }

  /** Between turns: tell the server what is here now. */
  private async replan(): Promise<void> {
    const { link, ladder } = this;
    if (ladder === null || link?.alive !== true || link.session.state !== 'idle') return;
    try {
      this.adoptPlan(await link.replan(this.report(ladder), ladder.split, this.expectedPromptTokens));
    } catch (error) {
      // The former plan stays in force; a lost connection is mended by the next question.
      if (!(error instanceof SplitLLMError)) throw error;
      this.tell.log.add(`no new plan: ${error.code}: ${error.message}`);
      if (error instanceof SessionError) this.tell.noticeError(error);
    }
  }

  private adoptPlan(plan: Plan): void {
    if (this.local?.blocks.resize(plan.max_tokens) === true) this.link?.session.forgetClientKv();
    this.tell.log.add(`split ${plan.split}, ${plan.max_tokens} tokens: ${plan.reason}`);
    this.tell.emit({ type: 'split', state: splitState(plan, this.link?.welcome ?? { model: '', blocks: plan.split }, this.local) });
  }

  /** A hint for the planner. */
  private get expectedPromptTokens(): number {
    const rows = this.link?.session.latestPromptRows ?? 0;
    return rows > 0 ? rows : FIRST_PROMPT_TOKENS;
  }

  private report({ measured }: Ladder): Report {
    return { ...measured, effort: this.effort };
  }

  // -- answering ------------------------------------------------------------------------------------------------------

  private async answer(ask: Ask): Promise<void> {
    await this.connect();
    const model = this.ladder?.model;
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
        const lost = this.link?.alive !== true;
        // Who has stopped waits for nothing: the next question connects.
        if (lost && this.stopRequested.has(ask)) return 'cancelled';
        if (lost) losses = answer.ids.length > known ? 1 : losses + 1;
        // Each step down the ladder is worth another attempt, and there are few of them.
        else if (!(isOfBlocks(error) && this.local !== null)) faults += 1;
        if (losses > MOST_LOSSES || faults > 1) throw error;
        await this.recover(error, ask);
      }
      // Ids of one bundle say nothing to another.
      if (this.ladder?.model !== model) return null;
    }
  }

  /** Ask for what the answer still lacks, or go on with the turn in work. Returns why it ended. */
  private async attempt(answer: Answer, prompt: readonly number[]): Promise<Done['finish_reason']> {
    const { ask } = answer.ask;
    const missing = answer.ask.maxTokens - answer.ids.length;
    const link = this.link;
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
        this.adoptPlan(plan);
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
    const cancel = this.link?.session.cancel() ?? null;
    if (cancel !== null) this.link?.send(cancel);
  }

  private async compute(work: Work): ReturnType<LocalModel['run']> {
    const { local } = this;
    // What has just come in their place, and holds fewer, is not to blame.
    if (local === null || local.blocks.ready < work.split) throw new RuntimeError('run_failed', 'The blocks here are gone; the server takes over.');
    this.used = local;
    return local.run(work.split, work.ids, work.span.start);
  }

  /** Mend what can be mended, or throw. */
  private async recover(error: unknown, ask: number): Promise<void> {
    this.tell.log.add(`answer broke off: ${asSplitLLMError(error).code}: ${asSplitLLMError(error).message}`);
    if (error instanceof ConnectionError || this.link?.alive !== true) {
      await this.reconnect(ask);
    } else if (error instanceof SessionError && error.code === 'not_finite' && this.wire === 'float16') {
      // Some models' hidden states outgrow float16.
      this.wire = 'float32';
      this.tell.notice('wire_widened', 'The hidden states of this model do not fit float16, so they now travel as float32.');
      this.link.close();
      await this.connect();
    } else if (isOfBlocks(error)) {
      if (this.used !== null) this.ladder?.stepDown(this.used, error);
      await this.replan();
    } else {
      throw error;
    }
  }

  /** A server that restarts is away for some seconds. */
  private async reconnect(ask: number): Promise<void> {
    for (const pause of RECONNECT_PAUSES_MS) {
      if (this.stopRequested.has(ask)) return;
      try {
        await this.connect();
        return;
      } catch (error) {
        if (!(error instanceof ConnectionError || (error instanceof SplitLLMError && PASSING.has(error.code)))) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    await this.connect();
  }

  // -- telling --------------------------------------------------------------------------------------------------------

  private fail(ask: number | null, error: unknown): void {
    this.tell.fail(ask, error);
    if (this.link?.alive !== true) this.link?.session.close(); // nobody waits for its answer any more
    if (!this.connected) this.setPhase('disconnected');
  }

  private setPhase(phase: Phase): void {
    this.tell.phase(phase, this.local?.blocks.ready ?? 0);
  }
}

/** Whether the blocks here are to blame, so that the answer goes on without them. */
function isOfBlocks(error: unknown): error is SplitLLMError {
  return error instanceof RuntimeError || (error instanceof SessionError && error.code === 'not_finite');
}
