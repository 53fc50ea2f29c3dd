/** The figures of the panel, and the planner's sentence. */
import { milliseconds, percent, rate } from '../format';
import type { State } from '../state';
import { serverWork } from '../conversation';
import { BACKEND_NAMES, trafficText } from '../words';
import { byId, element, setText } from './dom';

interface Figure {
  readonly value: string;
  readonly origin: string;
}

const NONE: Figure = { value: '–', origin: '' };

export function createFacts(): (state: State) => void {
  const ttft = tile('TTFT');
  const speed = tile('Tokens/s');
  const saved = tile('Server saved');
  const backend = row('Runs on');
  const weights = row('Weights here');
  const traffic = row('Over the wire');
  const chat = row('Saved so far');
  const rows = element('dl', 'rows', ...[backend, weights, traffic, chat].map((each) => each.node));
  const warning = element('p', 'warning', 'Slower than this server promises');
  const reason = element('p', 'reason');
  byId('split-why', HTMLElement).append(warning, reason);
  const facts = byId('split-facts', HTMLElement);
  facts.append(element('dl', 'tiles', ttft.node, speed.node, saved.node), rows);

  return (state) => {
    const split = state.split;
    facts.hidden = split === null;
    if (split === null) return;
    ttft.set(ttftFigure(state));
    speed.set(speedFigure(state));
    saved.set({ value: percent(split.savedServerTime), origin: 'of its time' });
    const work = serverWork(state.conversation);
    chat.set(work === null || work.run + work.saved === 0 ? '–' : `${milliseconds(work.saved)} of its time, ${percent(work.saved / (work.run + work.saved))}`);
    traffic.set(state.lastStats === null ? '–' : trafficText(state.lastStats));
    backend.set(BACKEND_NAMES[split.split === 0 ? 'none' : split.backend]);
    weights.set(split.split === 0 ? 'none' : split.variant);
    warning.hidden = split.feasible;
    setText(reason, split.reason);
    reason.hidden = split.reason === '';
  };
}

function ttftFigure({ lastStats, split }: State): Figure {
  if (lastStats !== null && lastStats.ttftMs !== null) return { value: milliseconds(lastStats.ttftMs), origin: 'last answer' };
  return split === null ? NONE : { value: milliseconds(split.predictedTtftMs), origin: 'predicted' };
}

function speedFigure({ lastStats, split }: State): Figure {
  if (lastStats !== null && lastStats.tpotMs !== null) return { value: rate(lastStats.tpotMs), origin: 'last answer' };
  return split === null ? NONE : { value: rate(split.predictedTpotMs), origin: 'predicted' };
}

function tile(label: string): { node: HTMLElement; set: (figure: Figure) => void } {
  const value = element('span', 'value');
  const origin = element('span', 'origin');
  const node = element('div', 'tile', element('dt', '', label), element('dd', '', value, origin));
  return {
    node,
    set(figure) {
      setText(value, figure.value);
      setText(origin, figure.origin);
    },
  };
}

function row(label: string): { node: HTMLElement; set: (value: string) => void } {
  const value = element('dd', '');
  const node = element('div', '', element('dt', '', label), value);
  return {
    node,
    set(text) {
      setText(value, text);
    },
  };
}
