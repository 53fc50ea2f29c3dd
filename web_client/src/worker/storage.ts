/** What is kept in this browser, and whether there is room for more. */
import type { StorageState, WeightChoice } from '../api';
import { KeptFiles } from '../bundle/kept';
import type { Announcer } from './announcer';

/** From here on a download is worth a word beforehand. */
const BIG_DOWNLOAD_BYTES = 100e6;

/** What a person wants done with weights, and what is done with them. */
export class DeviceStorage {
  readonly kept: Promise<KeptFiles>;

  constructor(
    private choice: WeightChoice,
    private readonly tell: Announcer,
  ) {
    this.kept = KeptFiles.open(choice.keep, () => {
      tell.notice('storage_full', 'This browser has no room left for the model: it runs from memory, and your next visit downloads the rest again.');
    });
  }

  /** Whether more of the model may be downloaded. */
  get download(): WeightChoice['download'] {
    return this.choice.download;
  }

  async choose(choice: WeightChoice): Promise<void> {
    const { keep } = this.choice;
    this.choice = choice;
    if (choice.keep !== keep) await (await this.kept).setKeep(choice.keep);
    await this.report();
  }

  async clear(): Promise<void> {
    await (await this.kept).clear();
    await this.report();
  }

  async report(): Promise<void> {
    this.tell.emit({ type: 'storage', state: await storageState(await this.kept) });
  }
}

export async function storageState(kept: KeptFiles): Promise<StorageState> {
  return { kind: kept.kind, ...(await kept.sizes()), freeBytes: await freeBytes() };
}

/** Bytes that the browser still has room for, or null where it does not say. */
export async function freeBytes(): Promise<number | null> {
  const { storage } = navigator as { storage?: StorageManager }; // pages over plain http have none
  const { quota, usage } = (await storage?.estimate().catch(() => undefined)) ?? {};
  return quota === undefined || usage === undefined ? null : Math.max(0, quota - usage);
}

/** What a person should know before `bytes` are downloaded, or before they `decide` on it; null where that is little. */
export function downloadSentence(bytes: number, free: number | null, decide: boolean): string | null {
  if (bytes < BIG_DOWNLOAD_BYTES) return null;
  const room = free === null ? '' : `, and this browser has room for ${gigabytes(free)}`;
  if (decide) return `To run part of the model here, ${gigabytes(bytes)} have to be downloaded${room}. You can chat without.`;
  return `While you chat, ${gigabytes(bytes)} of the model are downloaded${room}; Settings can pause that.`;
}

const gigabytes = (bytes: number): string => (bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`);
