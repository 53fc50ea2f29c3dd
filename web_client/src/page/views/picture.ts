/** The model as a row of cells, cut where the work passes from the browser to the server. */
import type { AnswerStats, SplitState } from '../../api';
import { milliseconds } from '../format';
import type { State } from '../state';
import { isArriving, pictureText, tokenTimes } from '../words';
import { byId, element } from './dom';

/** From this many blocks on the cells are drawn smaller. */
const DENSE_BLOCKS = 24;

interface Drawing {
  readonly split: SplitState;
  readonly blocksReady: number;
  readonly loading: boolean;
  readonly stats: AnswerStats | null;
}

export function createPicture(): (state: State) => void {
  const picture = byId('split-picture', HTMLElement);
  let drawn: Drawing | null = null;

  return (state) => {
    picture.hidden = state.split === null;
    if (state.split === null) return;
    const drawing = { split: state.split, blocksReady: state.blocksReady, loading: isArriving(state), stats: state.lastStats };
    if (drawn?.split === drawing.split && drawn.blocksReady === drawing.blocksReady && drawn.loading === drawing.loading && drawn.stats === drawing.stats) return;
    drawn = drawing;
    picture.classList.toggle('dense', drawing.split.blocks >= DENSE_BLOCKS);
    picture.setAttribute('aria-label', pictureText(drawing.split));
    picture.replaceChildren(...draw(drawing));
  };
}

function draw(drawing: Drawing): HTMLElement[] {
  const { split, blocks, wire, rttMs } = drawing.split;
  const cells = Array.from({ length: blocks }, (_, block) => blockCell(block, drawing));
  const embed = element('span', 'cell named', 'embed');
  const head = element('span', 'cell named', 'head');
  const here = split === 0 ? [element('span', 'nothing', 'No block runs here; your words leave as token numbers.')] : [embed, ...cells.slice(0, split)];
  const there = split === 0 ? [embed, ...cells, head] : [...cells.slice(split), head];
  const held = cells.some((cell) => cell.classList.contains('held'));
  const times = tokenTimes(drawing.stats, drawing.split);
  const carried = split === 0 ? 'token numbers' : wire;
  return [
    side('browser', 'Your browser', times?.here ?? '', here),
    element('div', 'link', element('i', 'down'), element('span', '', `${carried} · ${milliseconds(rttMs)} round trip`), element('i', 'up')),
    side('server', 'Server', times?.there ?? '', there),
    ...(held ? [element('p', 'key', 'Outlined: here already, not in use yet.')] : []),
  ];
}

function side(name: 'browser' | 'server', label: string, time: string, cells: readonly HTMLElement[]): HTMLElement {
  return element('div', `side ${name}`, element('div', 'side-head', element('span', 'side-name', label), element('span', 'side-time', time)), element('div', 'cells', ...cells));
}

function blockCell(block: number, { split: { split }, blocksReady, loading }: Drawing): HTMLElement {
  const cell = element('span', 'cell', String(block + 1));
  if (loading && block === blocksReady) cell.classList.add('arriving');
  else if (block >= split && block < blocksReady) cell.classList.add('held');
  return cell;
}
