/** An answer as it is read: Markdown that grows in place, so that a selection in what is complete survives the next word. */
import { BlockCutter } from './blocks';
import { renderMarkdown } from './html';
import { patchChildren } from './patch';

export interface MarkdownView {
  readonly node: HTMLElement;
  /** `text` is all of it so far; `complete` when no more comes. */
  update(text: string, complete: boolean): void;
}

/** Drawing takes at most one part in this many of the time, however long the last block has become. */
const PAUSE_PER_WORK = 4;
/** Drawing that is quicker than this needs no pause: it fits into a frame. */
const QUICK_MS = 4;
/** A link may be defined after the block that uses it, so these are drawn once more when all is there. */
const LINK_DEFINITION = /^ {0,3}\[[^\]\n]+\]:/m;

interface Shown {
  readonly source: string;
  /** How many child nodes it has become. */
  readonly nodes: number;
}

export function createMarkdown(now: () => number = () => performance.now()): MarkdownView {
  const node = document.createElement('div');
  node.className = 'text';
  let cutter = new BlockCutter();
  let definitions = {};
  /** Child nodes that belong to settled blocks. */
  let settledNodes = 0;
  let open: readonly Shown[] = [];
  let drawn = '';
  let wasComplete = false;
  let latest = '';
  let notBefore = 0;
  let timer: ReturnType<typeof setTimeout> | null = null;

  function begin(): void {
    cutter = new BlockCutter();
    definitions = {};
    settledNodes = 0;
    open = [];
  }

  function draw(complete: boolean): void {
    const started = now();
    const again = complete && LINK_DEFINITION.test(latest);
    if (again || !cutter.continues(latest)) begin();
    if (again) patchChildren(node, 0, renderMarkdown(latest));
    else grow();
    if (again) cutter.cut('');
    drawn = latest;
    wasComplete = complete;
    const spent = now() - started;
    notBefore = spent > QUICK_MS ? now() + PAUSE_PER_WORK * spent : 0;
  }

  function grow(): void {
    const cut = cutter.cut(latest);
    const blocks = [...cut.settled, ...cut.open];
    // Blocks that did not change since they were drawn stay as they are.
    const same = blocks.findIndex((block, index) => open[index]?.source !== block);
    const kept = open.slice(0, same < 0 ? blocks.length : same);
    const from = settledNodes + total(kept);
    const fresh = blocks.slice(kept.length).map((source) => ({ source, drawn: renderMarkdown(source, definitions) }));
    patchChildren(node, from, fresh.flatMap((block) => block.drawn));
    const all = [...kept, ...fresh.map((block) => ({ source: block.source, nodes: block.drawn.length }))];
    settledNodes += total(all.slice(0, cut.settled.length));
    open = all.slice(cut.settled.length);
  }

  return {
    node,
    update(text, complete) {
      latest = text;
      if (text === drawn && complete === wasComplete) return;
      if (timer !== null) {
        if (!complete) return;
        clearTimeout(timer);
        timer = null;
      }
      const wait = complete ? 0 : notBefore - now();
      if (wait <= 0) {
        draw(complete);
        return;
      }
      timer = setTimeout(() => {
        timer = null;
        draw(false);
      }, wait);
    },
  };
}

function total(shown: readonly Shown[]): number {
  return shown.reduce((sum, block) => sum + block.nodes, 0);
}
