/** The panel that shows where the model runs: its headline, what is going on, and the fold on small screens. */
import { timeLeft } from '../format';
import { Pace } from '../pace';
import { openAnswer, type State } from '../state';
import { amountText, headline, isArriving, phaseText } from '../words';
import { byId, setText } from './dom';
import { createFacts } from './facts';
import { createPicture } from './picture';

export function createSplitPanel(now: () => number = () => performance.now()): (state: State) => void {
  const panel = byId('split-panel', HTMLElement);
  const status = byId('split-status', HTMLElement);
  const meter = byId('split-meter', HTMLElement);
  const toggle = byId('split-toggle', HTMLButtonElement);
  const details = byId('split-details', HTMLElement);
  const activity = byId('split-activity', HTMLElement);
  const phase = byId('split-phase', HTMLElement);
  const progress = byId('split-progress', HTMLProgressElement);
  const amount = byId('split-amount', HTMLElement);
  const arrived = byId('split-bytes', HTMLElement);
  const left = byId('split-left', HTMLElement);
  const pace = new Pace();
  const drawPicture = createPicture();
  const drawFacts = createFacts();

  toggle.addEventListener('click', () => {
    const open = toggle.getAttribute('aria-expanded') !== 'true';
    toggle.setAttribute('aria-expanded', String(open));
    panel.classList.toggle('open', open);
  });

  // Without a stop of the Tab key, a panel that scrolls could not be read to its end from the keyboard.
  new ResizeObserver(() => {
    if (panel.scrollHeight > panel.clientHeight + 1) panel.tabIndex = 0;
    else panel.removeAttribute('tabindex');
  }).observe(details);

  return (state) => {
    // The status is a live region: it gets the headline, which is quiet, and never the progress, which is not.
    setText(status, headline(state));
    const connected = state.engineFailure === null && state.phase !== 'disconnected' && state.phase !== 'connecting';
    const placed = state.split !== null && connected;
    panel.dataset.phase = state.engineFailure === null ? state.phase : 'disconnected';
    panel.classList.toggle('answering', openAnswer(state) !== null && connected);

    // What ran before the connection was lost says nothing about now.
    for (const part of [details, meter, toggle]) part.hidden = !placed;
    if (state.split !== null) meter.style.setProperty('--share', String(state.split.split / Math.max(state.split.blocks, 1)));

    setText(phase, phaseLine(state));
    // The bar stays while a block is compiled between two downloads, so that nothing jumps.
    progress.hidden = !connected || !isArriving(state) || state.totalBytes === 0;
    activity.hidden = phase.textContent === '' && progress.hidden;
    amount.hidden = progress.hidden;
    if (state.phase === 'paused' || progress.hidden) pace.forget();
    if (!progress.hidden) {
      progress.value = Math.min(state.doneBytes / state.totalBytes, 1);
      setText(arrived, amountText(state));
      const ms = state.phase === 'paused' ? null : pace.left(now(), state.doneBytes, state.totalBytes);
      setText(left, ms === null ? '' : timeLeft(ms));
    }

    drawPicture(state);
    drawFacts(state);
  };
}

function phaseLine(state: State): string {
  const text = phaseText(state);
  // The headline says these already.
  return text === headline(state) ? '' : text;
}
