/** Model, connection and session: made when they are missing, planned again between turns. */
import type { EngineOptions, Phase, Wire } from '../api';
import { SessionError, SplitLLMError } from '../protocol/errors';
import type { Plan, Report } from '../protocol/messages.generated';
import type { Announcer } from './announcer';
import { Ladder } from './ladder';
import type { LadderHost } from './ladder';
import { ServerLink } from './link';
import type { LocalModel } from './local';
import { loadModel } from './model';
import type { Serial } from './serial';
import { splitState } from './split_state';
import type { DeviceStorage } from './storage';

const AGENT = 'splitllm-web';
/** Positions asked for: memory for all of them is reserved on both sides, and a chat of this length is a long one. */
const SESSION_TOKENS = 4096;
const FEWEST_SESSION_TOKENS = 256;
/** What a first question may have, with the template round it. */
const FIRST_PROMPT_TOKENS = 64;
/** Refusals of a server that has no room now. */
const FULL: ReadonlySet<string> = new Set(['server_full', 'kv_exhausted']);

export class Connection {
  /** The bundle and what of it runs here; null until the manifest is here, and while the server gets another bundle. */
  ladder: Ladder | null = null;
  link: ServerLink | null = null;
  wire: Wire;
  effort: number | null;
  /** Ends when the blocks of former bundles are gone. */
  private growth: Promise<void> = Promise.resolve();

  /** `serial` is what answers and plans wait for, one after the other. */
  constructor(
    private readonly options: EngineOptions,
    private readonly tell: Announcer,
    private readonly storage: DeviceStorage,
    private readonly serial: Serial,
  ) {
    this.wire = options.wire;
    this.effort = options.effort;
  }

  /** Model, connection, session: whatever of them is missing. */
  async connect(): Promise<void> {
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

  get local(): LocalModel | null {
    return this.ladder?.local ?? null;
  }

  /** A session is open, so what the page shows of a split is true. */
  get connected(): boolean {
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
  async replan(): Promise<void> {
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

  adoptPlan(plan: Plan): void {
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

  setPhase(phase: Phase): void {
    this.tell.phase(phase, this.local?.blocks.ready ?? 0);
  }

  close(): void {
    this.link?.close();
    void this.ladder?.close();
  }
}
