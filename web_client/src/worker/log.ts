/** The last lines of what happened, for a bug report. */
const MOST_LINES = 200;

export class Log {
  private readonly entries: string[] = [];

  add(line: string): void {
    this.entries.push(`${(performance.now() / 1000).toFixed(2)} s  ${line}`);
    if (this.entries.length > MOST_LINES) this.entries.shift();
  }

  get lines(): readonly string[] {
    return [...this.entries];
  }
}
