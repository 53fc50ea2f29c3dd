/** The drawer for developers: what runs where and what happened, to be copied into a bug report. */
import type { Diagnostics } from '../../api';
import type { Chat } from '../chat';
import type { State } from '../state';
import { canCopy } from './copy';
import { byId } from './dom';

export function createDetails(chat: Chat, state: () => State): void {
  const dialog = byId('details', HTMLDialogElement);
  const report = byId('report', HTMLElement);
  const copy = byId('report-copy', HTMLButtonElement);

  function read(): void {
    report.textContent = 'Reading…';
    chat.diagnostics().then(
      (diagnostics) => {
        report.textContent = reportText(diagnostics, state());
      },
      (error: unknown) => {
        report.textContent = error instanceof Error ? error.message : String(error);
      },
    );
  }

  byId('details-button', HTMLButtonElement).addEventListener('click', () => {
    read();
    dialog.showModal();
  });
  byId('report-again', HTMLButtonElement).addEventListener('click', read);
  copy.hidden = !canCopy();
  copy.addEventListener('click', () => {
    navigator.clipboard.writeText(report.textContent).then(
      () => {
        copy.textContent = 'Copied';
      },
      () => {
        copy.textContent = 'Not allowed';
      },
    );
    setTimeout(() => {
      copy.textContent = 'Copy report';
    }, 2000);
  });
}

/** A millisecond's millionth part tells nobody anything. */
const rounded = (_key: string, value: unknown): unknown => (typeof value === 'number' ? Number(value.toFixed(3)) : value);

/** Nothing that was asked or answered is in it. */
function reportText({ log, ...facts }: Diagnostics, { split, lastStats, notices }: State): string {
  const head = { browser: navigator.userAgent, page: location.origin + location.search, ...facts, split, lastStats, notices: notices.filter(({ action }) => action === undefined) };
  return `${JSON.stringify(head, rounded, 2)}\n\n${log.join('\n')}\n`;
}
