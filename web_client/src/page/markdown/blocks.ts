/**
 * Cuts Markdown that is still arriving into blocks that can no longer change and blocks that can, so that each new word costs
 * the parsing of the last blocks and not of the whole answer. No DOM.
 */
import { blockParser } from './parser';

export interface Cut {
  /** Source of the blocks that are complete since the last call. */
  readonly settled: readonly string[];
  /** Source of the blocks that the next words may turn into something else. */
  readonly open: readonly string[];
}

/**
 * A last line that is not complete may change the block it stands in, and whether that block is part of the one before
 * (`- a`, then `*`, then `*b*`): so the last two stay open.
 */
const OPEN_BLOCKS = 2;

export class BlockCutter {
  private source = '';
  private settledEnd = 0;
  /** Characters that were parsed so far; a measure of the work for tests. */
  parsed = 0;

  /** Whether `text` is what was cut so far and possibly more. */
  continues(text: string): boolean {
    return text.startsWith(this.source);
  }

  /** `text` is the whole source so far. */
  cut(text: string): Cut {
    this.source = text;
    const rest = text.slice(this.settledEnd);
    this.parsed += rest.length;
    const blocks = blocksOf(rest);
    const settled = blocks.slice(0, Math.max(0, blocks.length - OPEN_BLOCKS));
    this.settledEnd += settled.reduce((sum, block) => sum + block.length, 0);
    return { settled, open: blocks.slice(settled.length) };
  }
}

/** Each block with the blank lines round it. Together they are the source, character by character. */
export function blocksOf(source: string): readonly string[] {
  if (source === '') return [];
  const starts = blockParser
    .parse(source, {})
    .filter((token) => token.level === 0 && token.map !== null)
    .map((token) => token.map?.[0] ?? 0);
  const lines = source.split(/(?<=\r\n|\n|\r(?!\n))/);
  // Blank lines, and definitions of links, belong to the block before them; at the very start, to the first.
  const cuts = [0, ...new Set(starts.slice(1))];
  return cuts.map((line, index) => lines.slice(line, cuts[index + 1]).join(''));
}
