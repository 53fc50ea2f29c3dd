/**
 * The last words before a reload: what is asked of IndexedDB while a page goes away may never be done, but sessionStorage
 * is written at once, and read by the page that comes after in this tab.
 */
import type { StoredChat } from './database';

const KEY = 'splitllm.last-words';

export function leaveLastWords(words: StoredChat): void {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(words));
  } catch {
    // What was written before then has to do.
  }
}

/** Only this page writes there, and it is read once. */
export function takeLastWords(): StoredChat | null {
  try {
    const text = sessionStorage.getItem(KEY);
    sessionStorage.removeItem(KEY);
    return text === null ? null : (JSON.parse(text) as StoredChat);
  } catch {
    return null;
  }
}
