/** What only one tab of an origin may do at a time. */

/** Waits for the other tabs, unless `signal` ends that; throws its reason. Without Web Locks `call` is just called. */
export async function alone<T>(name: string, signal: AbortSignal | undefined, call: () => Promise<T>): Promise<T> {
  signal?.throwIfAborted();
  const { locks } = navigator as { locks?: LockManager };
  if (locks === undefined) return call();
  return locks.request(name, signal === undefined ? {} : { signal }, call);
}
