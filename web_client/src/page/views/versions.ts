/** Which of several versions of a turn is shown, and going from one to the next. */
import type { Chat } from '../chat';
import type { Turn } from '../conversation';
import { element, setText } from './dom';
import { iconButton } from './icons';

export interface VersionsView {
  readonly node: HTMLElement;
  update(versions: readonly Turn[], shown: string): void;
}

export function createVersions(chat: Chat): VersionsView {
  let around: { readonly before: string | null; readonly after: string | null } = { before: null, after: null };
  const previous = iconButton('previous', 'Version before', () => {
    if (around.before !== null) chat.showVersion(around.before);
  });
  const next = iconButton('next', 'Version after', () => {
    if (around.after !== null) chat.showVersion(around.after);
  });
  const place = element('span', 'place');
  const node = element('div', 'versions', previous, place, next);
  node.setAttribute('role', 'group');
  node.setAttribute('aria-label', 'Versions');
  return {
    node,
    update(versions, shown) {
      node.hidden = versions.length < 2;
      const index = versions.findIndex((turn) => turn.id === shown);
      around = { before: versions[index - 1]?.id ?? null, after: versions[index + 1]?.id ?? null };
      previous.disabled = around.before === null;
      next.disabled = around.after === null;
      setText(place, `${String(index + 1)} / ${String(versions.length)}`);
    },
  };
}
