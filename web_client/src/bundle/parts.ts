/** Which variant to run, and the parts of the bundle that a block needs. */
import type { Variant } from '../api';
import { BundleError } from '../protocol/errors';
import type { Manifest } from './manifest.generated';

export type Activations = 'float32' | 'float16';

export interface TensorPlace {
  readonly file: string;
  readonly offset: number;
  readonly shape: readonly number[];
}

export interface BlockParts {
  readonly graph: string;
  readonly weights: string | null;
  readonly activations: Activations;
  /** The graph's input name → where its tensor lies. */
  readonly constants: ReadonlyMap<string, TensorPlace>;
}

/** All blocks together: below this, exactness is worth more than a smaller download. */
const EXACT_BYTES = 64 * 2 ** 20;

/**
 * Variants in the order in which they are worth trying. `auto` is float32 while the blocks are small, because 4-bit weights cost a
 * tiny model more of its wits than they save anybody in bytes; beyond that 4 bits, which decode faster as well, with activations in
 * float16 first where the bundle has them. What computes in float16 is followed by its like in float32. Throws `variant_unavailable`.
 */
export function variantsToTry(manifest: Manifest, asked: Variant | 'auto'): Variant[] {
  if (asked === 'auto') {
    const large = blockBytes(manifest, 'float32').reduce((sum, bytes) => sum + bytes, 0) > EXACT_BYTES;
    const wanted = large ? (['int4f16', 'int4'] as const).filter((variant) => has(manifest, variant)) : [];
    return wanted.includes('int4') ? wanted : [...wanted, 'float32'];
  }
  if (!has(manifest, asked)) throw unavailable(`The bundle has no ${asked} blocks; choose ${variantsOf(manifest).join(' or ')}.`);
  if (activationsOf(manifest, asked) === 'float32') return [asked];
  return [asked, asked === 'int4f16' && has(manifest, 'int4') ? 'int4' : 'float32'];
}

/** What the blocks of a variant compute in. */
export function activationsOf(manifest: Manifest, variant: Variant): Activations {
  return blockParts(manifest, 0, variant).activations;
}

/** Bytes of each block, graph and weights. */
export function blockBytes(manifest: Manifest, variant: Variant): number[] {
  const sizeOf = (name: string | null): number => (name === null ? 0 : (manifest.files[name]?.size ?? 0));
  return manifest.blocks.map((block) => sizeOf(block[variant]?.graph ?? null) + sizeOf(block[variant]?.weights ?? null));
}

export function blockParts(manifest: Manifest, index: number, variant: Variant): BlockParts {
  const block = manifest.blocks[index]?.[variant];
  if (block === undefined) throw unavailable(`The bundle has no ${variant} variant of block ${index}.`);
  const constants = new Map<string, TensorPlace>();
  for (const [input, name] of Object.entries(block.constants)) {
    const place = Object.hasOwn(manifest.constants, name) ? manifest.constants[name]?.[block.activations] : undefined;
    if (place === undefined) throw new BundleError('bundle_damaged', `The bundle lacks the constant ${name} of block ${index}; its operator must export it again.`);
    constants.set(input, place);
  }
  return { graph: block.graph, weights: block.weights, activations: block.activations, constants };
}

function variantsOf(manifest: Manifest): Variant[] {
  return (['float32', 'float16', 'int8', 'int4', 'int4f16'] as const).filter((variant) => has(manifest, variant));
}

const has = (manifest: Manifest, variant: Variant): boolean => manifest.blocks.every((block) => block[variant] !== undefined);

const unavailable = (sentence: string): BundleError => new BundleError('variant_unavailable', sentence);
