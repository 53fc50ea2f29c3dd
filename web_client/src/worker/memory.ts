/** How much of the model fits here. */

/** Bytes that weights may use: a quarter of the memory that the browser admits to, or null where it does not say. */
export function memoryBytes(): number | null {
  const gigabytes = (navigator as { deviceMemory?: number }).deviceMemory;
  return gigabytes === undefined ? null : (gigabytes * 2 ** 30) / 4;
}

/** How many blocks from the first fit into the memory that weights may use. */
export function blocksThatFit(sizes: readonly number[], memory: number | null): number {
  let sum = 0;
  const first = sizes.findIndex((size) => (sum += size) > (memory ?? Infinity));
  return first < 0 ? sizes.length : first;
}
