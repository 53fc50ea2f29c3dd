/** Settings in the browser's storage. Where there is none, they last until the page is closed. */
import { settingsFrom, type Settings } from '../settings';

const KEY = 'splitllm.settings';

export function readSettings(): Settings {
  try {
    return settingsFrom(localStorage.getItem(KEY));
  } catch {
    return settingsFrom(null);
  }
}

export function writeSettings(settings: Settings): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // The state has them.
  }
}
