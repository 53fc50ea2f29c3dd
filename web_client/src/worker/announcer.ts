/** What the engine tells the page, and the log of it. */
import type { EngineEvent, Phase } from '../api';
import { SplitLLMError } from '../protocol/errors';
import { Log } from './log';

type Progress = Extract<EngineEvent, { type: 'phase' }>;

const PROGRESS_EVERY_MS = 100;

export class Announcer {
  readonly log = new Log();
  private progress: Progress = { type: 'phase', phase: 'connecting', doneBytes: 0, totalBytes: 0, blocksReady: 0 };
  private progressAt = 0;
  private muted = false;

  constructor(private readonly post: (event: EngineEvent) => void) {}

  emit(event: EngineEvent): void {
    if (!this.muted) this.post(event);
  }

  /** The engine is closed: nothing more is heard of it. */
  mute(): void {
    this.muted = true;
  }

  /** An answer failed, or with null the engine cannot go on. */
  fail(ask: number | null, error: unknown): void {
    const { code, message } = asSplitLLMError(error);
    this.log.add(`failed: ${code}: ${message}`);
    this.emit({ type: 'failed', ask, code, sentence: message });
  }

  notice(code: string, sentence: string): void {
    this.log.add(`notice: ${code}: ${sentence}`);
    this.emit({ type: 'notice', code, sentence });
  }

  noticeError(error: unknown): void {
    const { code, message } = asSplitLLMError(error);
    this.notice(code, message);
  }

  phase(phase: Phase, blocksReady: number): void {
    this.step({ ...this.progress, phase, blocksReady });
  }

  /** Bytes are told now and then, anything else at once. */
  step(next: Progress): void {
    const before = this.progress;
    this.progress = next;
    const now = performance.now();
    const news = next.phase !== before.phase || next.blocksReady !== before.blocksReady || next.doneBytes === next.totalBytes;
    if (!news && now - this.progressAt < PROGRESS_EVERY_MS) return;
    this.progressAt = now;
    this.emit(next);
  }
}

/** Anything that is not of the tree is a fault of this client. */
export function asSplitLLMError(error: unknown): SplitLLMError {
  if (error instanceof SplitLLMError) return error;
  return new SplitLLMError('engine_fault', `The engine in your browser met a fault (${error instanceof Error ? error.message : String(error)}); reload the page.`);
}
