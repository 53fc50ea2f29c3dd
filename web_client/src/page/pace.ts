/** How long a download still takes, from the pace of its last seconds. Pure: the time comes in. */

/** A pace is told once it was seen for so long, and is that of the latest so many milliseconds: links change. */
const SEEN_MS = 1000;
const LATEST_MS = 10_000;

export class Pace {
  private readonly seen: { readonly at: number; readonly done: number }[] = [];

  /** Milliseconds until `total` bytes are there, `done` of them being there `now`; null while nobody can tell. */
  left(now: number, done: number, total: number): number | null {
    // Another download, or one that begins again.
    if (done < (this.seen.at(-1)?.done ?? 0)) this.forget();
    this.seen.push({ at: now, done });
    while (this.seen.length > 2 && (this.seen[1]?.at ?? now) <= now - LATEST_MS) this.seen.shift();
    const first = this.seen[0] ?? { at: now, done };
    if (now - first.at < SEEN_MS || done === first.done) return null;
    return ((total - done) * (now - first.at)) / (done - first.done);
  }

  /** It stands still because somebody wants that. */
  forget(): void {
    this.seen.length = 0;
  }
}
