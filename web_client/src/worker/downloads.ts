/** Whether weights may be downloaded now: a person pauses and resumes, and networks go and come back. */
import { BundleError } from '../protocol/errors';

/** After a download that broke off; the last one again and again. */
const RETRY_PAUSES_MS = [1000, 2000, 5000, 10_000, 30_000];

export class Downloads {
  private controller = new AbortController();
  private allowed: Promise<void> = Promise.resolve();
  private allow: () => void = () => undefined;
  private ended = false;

  constructor(allowed: boolean) {
    if (!allowed) this.pause();
  }

  /** Ends downloads while they are paused, with the error `download_paused`. */
  get signal(): AbortSignal {
    return this.controller.signal;
  }

  get paused(): boolean {
    return this.signal.aborted;
  }

  pause(): void {
    if (this.paused) return;
    this.allowed = new Promise((resolve) => (this.allow = resolve));
    this.controller.abort(new BundleError('download_paused', 'The download of the model is paused; the server runs what is not here.'));
  }

  resume(): void {
    if (!this.paused || this.ended) return;
    this.controller = new AbortController();
    this.allow();
  }

  /** Nothing is downloaded any more, and nothing waits. */
  end(): void {
    this.ended = true;
    this.pause();
    this.allow();
  }

  /** `load` again and again, until it is through: after a pause, and whenever the network may be back. */
  async patiently<T>(load: (signal: AbortSignal) => Promise<T>, onPause: () => void): Promise<T> {
    for (let failures = 0; ; ) {
      try {
        return await load(this.signal);
      } catch (error) {
        if (!(error instanceof BundleError) || this.ended) throw error;
        if (error.code === 'download_paused') {
          onPause();
          await this.allowed;
        } else if (error.code === 'bundle_unreachable') {
          await this.networkBack(RETRY_PAUSES_MS[Math.min(failures, RETRY_PAUSES_MS.length - 1)] ?? 0);
          failures += 1;
        } else {
          throw error;
        }
      }
    }
  }

  /** The browser says that it is online again, or so much time has passed, or nobody waits for that any more. */
  private async networkBack(pauseMs: number): Promise<void> {
    const { signal } = this;
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      const back = (): void => {
        clearTimeout(timer);
        self.removeEventListener('online', back);
        signal.removeEventListener('abort', back);
        resolve();
      };
      const timer = setTimeout(back, pauseMs);
      self.addEventListener('online', back);
      signal.addEventListener('abort', back);
    });
  }
}
