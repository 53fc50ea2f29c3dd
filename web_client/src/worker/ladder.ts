/**
 * What of the model runs in this browser: the backend, the blocks that have arrived on it, and the step down when it fails.
 * One for each bundle.
 */
import type { Backend, EngineOptions, Phase, WeightChoice } from '../api';
import { SessionError } from '../protocol/errors';
import type { SplitLLMError } from '../protocol/errors';
import type { Plan, Report, Split } from '../protocol/messages.generated';
import type { Announcer } from './announcer';
import { Downloads } from './downloads';
import { grow } from './growth';
import type { GrowthHost } from './growth';
import type { LocalModel } from './local';
import { PREFILL_ROWS } from './measure';
import type { Model } from './model';
import { deviceLost } from './ort';
import type { Failure } from './rungs';
import { downloadSentence, freeBytes } from './storage';

export interface LadderHost {
  readonly tell: Announcer;
  /** The plan in force. */
  readonly plan: Plan | null;
  /** Keys and values of the blocks here are gone. */
  forgetKv(): void;
  /** Tell the server what is here now, once no answer is under way. */
  replan(): Promise<void>;
  progress(phase: Phase, doneBytes: number, totalBytes: number, blocksReady: number): void;
  /** No more blocks are on their way. */
  settled(): void;
}

export class Ladder {
  /** What runs blocks, or null while nothing does. */
  local: LocalModel | null = null;
  /** Whether blocks are being loaded in the background. */
  growing = false;
  /** Whether the first blocks were sent for, however that ended. */
  begun = false;
  /** The backend that blocks may yet arrive on; the planner's sentence tells people to wait, rather than that nothing can run. */
  private prospect: Backend;
  private closed = false;
  /** A person was asked for the download, and has not said yes. */
  private asking = false;
  private readonly downloads: Downloads;
  /** Rungs that are not tried again. */
  private readonly failures: Failure[] = [];

  /** `growth` ends when no blocks are being loaded any more: two growths would call one runtime. */
  constructor(
    readonly model: Model,
    private readonly options: EngineOptions,
    private readonly host: LadderHost,
    private growth: Promise<void>,
    private download: WeightChoice['download'],
  ) {
    this.downloads = new Downloads(download !== false);
    this.prospect = firstProspect(options);
    if (model.identity === null && options.backend !== 'none' && options.split !== 0) {
      this.begun = true; // nothing to grow with
      this.prospect = 'none';
      host.tell.notice('insecure_context', 'This page was not loaded over https, so the browser can neither verify weights nor use WebGPU; the server runs the whole model.');
    }
  }

  /** What a report says of this browser; the rest is the person's word. */
  get measured(): Omit<Report, 'effort'> {
    const unknown = { decode_ms: null, prefill_ms: null, prefill_rows: PREFILL_ROWS, memory_bytes: null };
    const here = this.local?.measured ?? { backend: this.prospect, variant: 'float32', blocks_ready: 0, ...unknown };
    return { ...here, more_blocks: (!this.begun || this.growing) && !this.downloads.paused };
  }

  /** What to ask the planner for: a number only as far as blocks are here. */
  get split(): Split {
    return this.options.split === 'auto' ? 'auto' : Math.min(this.forcedSplit, this.local?.blocks.ready ?? 0);
  }

  /** Whether more of the model may be downloaded, from now on. */
  allowDownloads(allowed: WeightChoice['download']): void {
    this.download = allowed;
    if (allowed === true) this.asking = false;
    const { paused } = this.downloads;
    if (allowed === false || this.asking) this.downloads.pause();
    else this.downloads.resume();
    // Whether more blocks are on their way stands in the plan's sentence.
    if (this.downloads.paused !== paused) void this.host.replan();
  }

  /** Load what the session shall begin with: the blocks of a split that was asked for by number. */
  async prepare(): Promise<void> {
    if (this.forcedSplit === 0 || this.begun) return;
    this.begun = true;
    const host = this.growthHost(() => Promise.resolve(true));
    await this.grow(false, host).catch((error: unknown) => {
      this.host.tell.noticeError(error);
    });
    const ready = this.local?.blocks.ready ?? 0;
    if (ready < this.forcedSplit) {
      this.host.tell.notice('split_reduced', `Of the ${this.forcedSplit} blocks asked for ${ready} can run here; the server runs the rest.`);
    }
  }

  /** Load in the background what the planner can use. Returns whether there was anything to begin. */
  begin(): boolean {
    if (this.options.split !== 'auto' || this.begun) return false;
    this.growInBackground();
    return true;
  }

  /** The blocks of `local` cannot be used any more: the server takes over, and what stands lower on the ladder is loaded meanwhile. */
  stepDown(local: LocalModel, error: SplitLLMError): void {
    // What stands lower may be here already.
    if (this.local !== local || this.closed) return;
    this.local = null;
    this.failures.push({ backend: local.backend, variant: local.variant, code: error.code });
    this.host.tell.noticeError(error);
    void local.close().catch(() => undefined);
    this.growInBackground();
  }

  /** Nothing is told any more, and no block runs. Resolves when no call into the runtime is left. */
  async close(): Promise<void> {
    const { local } = this;
    this.closed = true;
    this.local = null;
    this.downloads.end();
    // A growth that is under way may be in the middle of a block.
    await this.growth;
    await local?.close().catch(() => undefined);
  }

  private get forcedSplit(): number {
    return this.options.split === 'auto' ? 0 : this.options.split;
  }

  private growInBackground(): void {
    this.begun = true;
    if (this.options.backend === 'none') {
      this.host.settled();
      return;
    }
    if (this.failures.length > 0) this.prospect = 'wasm';
    const host = this.growthHost(async (local) => {
      await this.host.replan();
      const split = this.host.plan?.split ?? 0;
      return this.local === local && (this.forcedSplit > 0 || split >= local.blocks.ready);
    });
    let failed = false;
    this.growing = true;
    this.growth = this.growth
      .then(async () => {
        if (this.closed || this.local !== null) return;
        this.growing = true;
        await this.grow(true, host);
      })
      .catch((error: unknown) => {
        failed = true;
        if (!this.closed) this.host.tell.noticeError(error);
      })
      .finally(() => {
        if (this.closed) return;
        this.growing = false;
        this.prospect = 'none';
        // Otherwise the last blocks that arrived have been told of; more were promised with them where the memory holds no more.
        const ready = this.local?.blocks.ready ?? 0;
        if (failed || ready < this.model.manifest.model.blocks) void this.host.replan();
        this.host.settled();
      });
  }

  private grow(patient: boolean, host: GrowthHost): Promise<void> {
    const { model, downloads, failures } = this;
    const { backend, variant } = this.options;
    const blocks = this.forcedSplit === 0 ? null : this.forcedSplit;
    return grow(model, { backend, variant, failures, blocks, patient, downloads }, host);
  }

  /** Of a growth whose blocks the server may have no more when they arrive. */
  private growthHost(arrived: GrowthHost['arrived']): GrowthHost {
    const { tell } = this.host;
    return {
      arrived,
      progress: (phase, doneBytes, totalBytes, blocksReady) => {
        if (!this.closed) this.host.progress(phase, doneBytes, totalBytes, blocksReady);
      },
      announce: async (bytes) => {
        // Who names a split in numbers has decided.
        const decide = this.download === 'ask' && this.options.split === 'auto';
        const sentence = downloadSentence(bytes, await freeBytes(), decide);
        if (sentence === null) return;
        tell.notice('big_download', sentence);
        if (!decide) return;
        this.asking = true;
        this.downloads.pause();
        void this.host.replan();
      },
      adopt: (local) => {
        if (this.closed) {
          void local.close().catch(() => undefined);
          throw new SessionError('bundle_mismatch', 'The server has another bundle.');
        }
        this.local = local;
        tell.log.add(`${local.backend}${local.gpu === null ? '' : ` (${local.gpu.vendor} ${local.gpu.architecture})`}, ${local.variant}`);
        const { plan } = this.host;
        if (plan !== null) local.blocks.resize(plan.max_tokens);
        // A split that stays the same would have it taken for the one before it.
        this.host.forgetKv();
        void local.gpu?.device.lost.then(() => {
          if (this.local !== local || this.growing || this.closed) return;
          this.stepDown(local, deviceLost());
          void this.host.replan();
        });
      },
      abandon: (error) => {
        if (this.closed) return;
        // Nobody asked for float16, so its lack is no news.
        if (error.code === 'float16_unavailable' && this.options.variant === 'auto') tell.log.add(error.message);
        else tell.noticeError(error);
        void this.local?.close().catch(() => undefined);
        this.local = null;
        if ((this.host.plan?.split ?? 0) > 0) void this.host.replan();
      },
    };
  }
}

function firstProspect({ split, backend }: EngineOptions): Backend {
  if (split !== 'auto' || backend === 'none') return 'none';
  return backend === 'wasm' || !('gpu' in navigator) ? 'wasm' : 'webgpu';
}
