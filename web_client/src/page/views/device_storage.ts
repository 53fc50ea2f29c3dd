/** What of the model stays on this device: the choices in the Settings dialog, what is kept, and the button that removes it. */
import type { StorageState } from '../../api';
import type { Chat } from '../chat';
import { bytes } from '../format';
import type { Settings } from '../settings';
import type { State } from '../state';
import { button, byId, element, setText } from './dom';

export function createDeviceStorage(chat: Chat, held: () => Settings, keep: (settings: Settings) => void): (state: State) => void {
  const keeping = checkbox('keep-weights', 'Keep the model on this device', 'Your next visit need not download it again. Without this it is gone when you leave.', (checked) => {
    change({ keepWeights: checked });
    // So that the browser does not clear it by itself when its disk fills up; it may refuse, and nothing is lost by that.
    const { storage } = navigator as { storage?: StorageManager };
    if (checked) void storage?.persist().catch(() => false);
  });
  const saving = checkbox('less-data', 'Use less data', 'Nothing more of the model is downloaded: what is here runs here, and the server runs the rest.', (checked) => {
    change({ lessData: checked });
  });
  const sizes = element('p', 'hint');
  const remove = button('button small', 'Remove it from this device', () => {
    chat.clearStorage();
  });
  byId('device-storage', HTMLFieldSetElement).append(keeping.field, saving.field, sizes, remove);
  byId('settings-button', HTMLButtonElement).addEventListener('click', () => {
    chat.askStorage();
  });

  function change(part: Partial<Settings>): void {
    const settings = { ...held(), ...part };
    chat.configure(settings);
    keep(settings);
  }

  return ({ settings, storage }) => {
    keeping.input.checked = settings.keepWeights;
    saving.input.checked = settings.lessData;
    setText(sizes, storage === null ? '' : storageText(storage));
    remove.hidden = storage === null || storage.kind === 'memory' || storedBytes(storage) === 0;
  };
}

/** `2.1 MB of this model, 4.0 MB of other models and former versions. Room for 9.1 GB.` */
export function storageText(storage: StorageState): string {
  if (storage.kind === 'memory') return 'Nothing of the model is kept on this device.';
  const parts = [`${bytes(storage.bytes)} of this model`];
  if (storage.otherBytes > 0) parts.push(`${bytes(storage.otherBytes)} of other models and former versions, which go when room is needed`);
  if (storage.partialBytes > 0) parts.push(`${bytes(storage.partialBytes)} of downloads that are not complete`);
  const room = storage.freeBytes === null ? '' : ` This browser has room for ${bytes(storage.freeBytes)} more.`;
  return `Kept: ${parts.join(', ')}.${room}`;
}

const storedBytes = (storage: StorageState): number => storage.bytes + storage.otherBytes + storage.partialBytes;

function checkbox(id: string, name: string, hint: string, changed: (checked: boolean) => void): { readonly field: HTMLElement; readonly input: HTMLInputElement } {
  const input = element('input', '');
  input.type = 'checkbox';
  input.id = id;
  const label = element('label', '', input, ` ${name}`);
  const explained = element('p', 'hint', hint);
  explained.id = `${id}-hint`;
  input.setAttribute('aria-describedby', explained.id);
  input.addEventListener('change', () => {
    changed(input.checked);
  });
  return { field: element('div', 'field', label, explained), input };
}
