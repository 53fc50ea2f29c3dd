/** The list of conversations, with what can be done to one of them. */
import type { Library } from '../library';
import type { ChatSummary, State } from '../state';
import { saveFile } from './files';
import { byId, element } from './dom';
import { focusMessage } from './focus';
import { iconButton } from './icons';
import { isComposing } from './composing';

interface Shown {
  readonly chats: readonly ChatSummary[];
  readonly current: string;
}

export function createChats(library: Library): (state: State) => void {
  const panel = byId('chats', HTMLElement);
  const list = byId('chats-list', HTMLElement);
  const empty = byId('chats-empty', HTMLElement);
  const exportAll = byId('export-all', HTMLButtonElement);
  const menu = createMenu(library, rename);
  let latest: Shown = { chats: [], current: '' };
  let shown: Shown | null = null;
  let renaming: string | null = null;

  exportAll.addEventListener('click', () => {
    void library.exported(null).then((text) => {
      saveFile('splitllm-chats.json', text);
    });
  });
  createImport(library);

  function row({ id, title }: ChatSummary, current: string): HTMLElement {
    const open = element('button', 'chat-open', title);
    open.type = 'button';
    open.dir = 'auto';
    open.title = title;
    if (id === current) open.setAttribute('aria-current', 'true');
    open.addEventListener('click', () => {
      panel.hidePopover();
      void library.open(id).then(focusMessage);
    });
    const more = iconButton('more', `More for ${title}`, () => {
      menu.open(id, title, more);
    });
    more.setAttribute('aria-haspopup', 'menu');
    const node = element('li', 'chat-row', open, more);
    node.dataset.chat = id;
    return node;
  }

  function rename(id: string, title: string): void {
    const node = [...list.children].find((child) => child instanceof HTMLElement && child.dataset.chat === id);
    if (node === undefined) return;
    renaming = id;
    const box = element('input', 'chat-name');
    box.value = title;
    box.dir = 'auto';
    box.maxLength = 200;
    box.setAttribute('aria-label', 'Name of this chat');
    let done = false;
    const finish = (save: boolean): void => {
      if (done) return;
      done = true;
      renaming = null;
      shown = null; // the box is in it
      draw();
      void (save && box.value.trim() !== title ? library.rename(id, box.value) : library.refreshList());
    };
    box.addEventListener('keydown', (event) => {
      if (isComposing(event)) return;
      if (event.key === 'Enter' || event.key === 'Escape') {
        event.preventDefault();
        event.stopPropagation();
        finish(event.key === 'Enter');
      }
    });
    box.addEventListener('blur', () => {
      finish(true);
    });
    node.replaceChildren(box);
    box.focus();
    box.select();
  }

  function draw(): void {
    const { chats, current } = latest;
    if (renaming !== null || (shown?.chats === chats && shown.current === current)) return;
    shown = latest;
    const focused = document.activeElement?.closest<HTMLElement>('.chat-row')?.dataset.chat;
    list.replaceChildren(...chats.map((chat) => row(chat, current)));
    empty.hidden = chats.length > 0;
    exportAll.disabled = chats.length === 0;
    if (focused !== undefined) list.querySelector<HTMLElement>(`[data-chat="${focused}"] .chat-open`)?.focus();
  }

  return ({ chats, conversation }) => {
    latest = { chats, current: conversation.id };
    draw();
  };
}

interface Menu {
  open(id: string, title: string, beside: HTMLElement): void;
}

function createMenu(library: Library, rename: (id: string, title: string) => void): Menu {
  const node = byId('chat-menu', HTMLElement);
  const items = [...node.querySelectorAll('button')];
  let target = { id: '', title: '' };

  function on(id: string, act: () => void): void {
    byId(id, HTMLButtonElement).addEventListener('click', () => {
      node.hidePopover();
      act();
    });
  }
  on('chat-rename', () => {
    rename(target.id, target.title);
  });
  on('chat-export', () => {
    void library.exported(target.id).then((text) => {
      saveFile('splitllm-chat.json', text);
    });
  });
  on('chat-delete', () => {
    void library.remove(target.id).then(focusMessage);
  });
  node.addEventListener('keydown', (event) => {
    const step = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
    if (step === 0) return;
    event.preventDefault();
    const index = items.findIndex((item) => item === document.activeElement);
    items.at((index + step) % items.length)?.focus();
  });

  return {
    open(id, title, beside) {
      target = { id, title };
      node.showPopover();
      const place = beside.getBoundingClientRect();
      const { offsetWidth, offsetHeight } = node;
      node.style.left = `${String(Math.max(8, Math.min(place.right - offsetWidth, innerWidth - offsetWidth - 8)))}px`;
      node.style.top = `${String(Math.min(place.bottom + 4, innerHeight - offsetHeight - 8))}px`;
      items[0]?.focus();
    },
  };
}

function createImport(library: Library): void {
  const file = byId('import-file', HTMLInputElement);
  byId('import', HTMLButtonElement).addEventListener('click', () => {
    file.click();
  });
  file.addEventListener('change', () => {
    const [chosen] = file.files ?? [];
    // The same file may be chosen again.
    if (chosen !== undefined) void chosen.text().then((text) => library.take(text));
    file.value = '';
  });
}
