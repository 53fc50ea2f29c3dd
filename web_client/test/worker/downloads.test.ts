import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { KeptFiles } from '../../src/bundle/kept';
import { BundleError } from '../../src/protocol/errors';
import { Downloads } from '../../src/worker/downloads';
import { downloadSentence, storageState } from '../../src/worker/storage';

/** A load that ends by hand, or by its signal. */
function slowLoad(): { load: (signal: AbortSignal) => Promise<string>; calls: ((end: string | Error) => void)[] } {
  const calls: ((end: string | Error) => void)[] = [];
  const load = (signal: AbortSignal): Promise<string> =>
    new Promise((resolve, reject) => {
      const abort = (): void => {
        reject(signal.reason as Error);
      };
      calls.push((end) => {
        if (typeof end === 'string') resolve(end);
        else reject(end);
      });
      if (signal.aborted) abort();
      else signal.addEventListener('abort', abort);
    });
  return { load, calls };
}

const unreachable = new BundleError('bundle_unreachable', 'Offline.');
const network = new EventTarget();

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal('self', network);
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test('a pause ends a download, and it goes on after it', async () => {
  const downloads = new Downloads(true);
  const { load, calls } = slowLoad();
  let pauses = 0;
  const loaded = downloads.patiently(load, () => (pauses += 1));
  downloads.pause();
  await vi.runAllTimersAsync();
  expect([pauses, calls.length]).toEqual([1, 1]);
  downloads.resume();
  await vi.runAllTimersAsync();
  calls[1]?.('here');
  await expect(loaded).resolves.toBe('here');
});

test('who wants no downloads from the start gets none until then', async () => {
  const downloads = new Downloads(false);
  const { load, calls } = slowLoad();
  const loaded = downloads.patiently(load, () => undefined);
  await vi.runAllTimersAsync();
  expect(calls).toHaveLength(1); // what is kept is read; its signal stopped the rest
  downloads.resume();
  await vi.runAllTimersAsync();
  calls[1]?.('here');
  await expect(loaded).resolves.toBe('here');
});

test('a network that is away is tried again after a while, and at once when it is back', async () => {
  const downloads = new Downloads(true);
  const { load, calls } = slowLoad();
  const loaded = downloads.patiently(load, () => undefined);
  calls[0]?.(unreachable);
  await vi.advanceTimersByTimeAsync(999);
  expect(calls).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(1);
  calls[1]?.(unreachable);
  await vi.advanceTimersByTimeAsync(0);
  network.dispatchEvent(new Event('online'));
  await vi.advanceTimersByTimeAsync(0);
  calls[2]?.('here');
  await expect(loaded).resolves.toBe('here');
  expect(vi.getTimerCount()).toBe(0);
});

test('a pause, and an end, need not wait for a network that is away', async () => {
  const downloads = new Downloads(true);
  const { load, calls } = slowLoad();
  let pauses = 0;
  const loaded = expect(downloads.patiently(load, () => (pauses += 1))).rejects.toThrow(BundleError);
  calls[0]?.(unreachable);
  await vi.advanceTimersByTimeAsync(0);
  downloads.pause();
  await vi.advanceTimersByTimeAsync(0);
  expect([pauses, vi.getTimerCount()]).toEqual([1, 0]);
  downloads.resume();
  await vi.advanceTimersByTimeAsync(0);
  calls.at(-1)?.(unreachable);
  await vi.advanceTimersByTimeAsync(0);
  downloads.end();
  await vi.advanceTimersByTimeAsync(0);
  expect(vi.getTimerCount()).toBe(0);
  await loaded;
});

test('another error is not waited for, and an end ends all waiting', async () => {
  const { load, calls } = slowLoad();
  const damaged = new BundleError('bundle_damaged', 'Damaged.');
  const first = new Downloads(true).patiently(load, () => undefined);
  calls[0]?.(damaged);
  await expect(first).rejects.toBe(damaged);
  const downloads = new Downloads(false);
  const second = expect(downloads.patiently(load, () => undefined)).rejects.toThrow(BundleError);
  await vi.runAllTimersAsync();
  downloads.end();
  await second;
  downloads.resume();
  expect(downloads.signal.aborted).toBe(true);
});

test('a big download is told beforehand with the room there is, a small one is not worth a word', () => {
  expect(downloadSentence(99e6, 1e9, true)).toBeNull();
  expect(downloadSentence(812e6, 12.34e9, false)).toBe('While you chat, 812 MB of the model are downloaded, and this browser has room for 12.3 GB; Settings can pause that.');
  expect(downloadSentence(1.5e9, null, false)).toBe('While you chat, 1.5 GB of the model are downloaded; Settings can pause that.');
  expect(downloadSentence(1.5e9, 20e9, true)).toBe(
    'To run part of the model here, 1.5 GB have to be downloaded, and this browser has room for 20.0 GB. You can chat without.',
  );
});

test('a page over plain http, which has no storage, is told so', async () => {
  vi.stubGlobal('navigator', {});
  const kept = await KeptFiles.open(true, () => undefined);
  await expect(storageState(kept)).resolves.toEqual({ kind: 'memory', bytes: 0, otherBytes: 0, partialBytes: 0, freeBytes: null });
});
