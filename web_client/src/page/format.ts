/** Figures as a person reads them. The page is in English, so the decimal sign is a point everywhere. */

/** `240 ms`, from one second on `1.4 s`. */
export function milliseconds(ms: number): string {
  const rounded = Math.round(ms);
  if (rounded >= 10_000) return `${String(Math.round(ms / 1000))} s`;
  if (rounded >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return ms > 0 && ms < 1 ? '< 1 ms' : `${String(rounded)} ms`;
}

/** Tokens per second, `14.2`, from milliseconds per token. */
export function rate(tpotMs: number): string {
  const perSecond = 1000 / Math.max(tpotMs, 0.001);
  return perSecond >= 99.95 ? String(Math.round(perSecond)) : perSecond.toFixed(1);
}

export function count(n: number, singular: string): string {
  return `${String(n)} ${singular}${n === 1 ? '' : 's'}`;
}

/** `12 s left`, `3 min left`: no more exact than anybody could know. */
export function timeLeft(ms: number): string {
  const seconds = Math.max(1, Math.ceil(ms / 1000));
  if (seconds < 90) return `${String(seconds)} s left`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${String(minutes)} min left` : `${String(Math.round(minutes / 60))} h left`;
}

/** Two sizes in one unit, decimal as browsers and download managers show it: `2.1 of 6.3 MB`. */
export function bytesOf(done: number, total: number): string {
  const [unit, name] = total >= 1e9 ? [1e9, 'GB'] : total >= 1e6 ? [1e6, 'MB'] : [1e3, 'kB'];
  const shown = Math.min(done, total);
  const digits = name === 'kB' || total / unit >= 100 ? 0 : 1;
  return `${done === 0 ? '0' : (shown / unit).toFixed(digits)} of ${(total / unit).toFixed(digits)} ${name}`;
}

/** One size: `840 B`, `12.5 kB`. */
export function bytes(size: number): string {
  if (size < 1000) return `${String(size)} B`;
  if (size < 1e6) return `${(size / 1000).toFixed(1)} kB`;
  return size < 1e9 ? `${(size / 1e6).toFixed(1)} MB` : `${(size / 1e9).toFixed(1)} GB`;
}

/** `63 %`; only exactly nothing is `0 %` and only everything is `100 %`. */
export function percent(fraction: number): string {
  if (fraction > 0 && fraction < 0.01) return '< 1 %';
  if (fraction > 0.99 && fraction < 1) return '> 99 %';
  return `${String(Math.round(fraction * 100))} %`;
}
