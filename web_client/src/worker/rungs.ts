/** The ladder as a list: WebGPU in float16, WebGPU in float32, the processor; below the last one the server runs everything. */
import type { Backend, Variant } from '../api';
import { activationsOf, variantsToTry } from '../bundle/parts';
import type { Manifest } from '../bundle/manifest';

export interface Rung {
  readonly backend: Exclude<Backend, 'none'>;
  readonly variant: Variant;
}

/** What failed here, by the code of its error. */
export interface Failure extends Rung {
  readonly code: string;
}

/** After these no WebGPU is left to try. */
const GPU_GONE: ReadonlySet<string> = new Set(['webgpu_unavailable', 'device_lost']);

/** Throws `variant_unavailable` when the bundle does not have the variant that is asked for. */
export function rungsOf(manifest: Manifest, backend: 'auto' | Backend, variant: 'auto' | Variant): Rung[] {
  if (backend === 'none') return [];
  const variants = variantsToTry(manifest, variant);
  const onGpu = backend === 'wasm' ? [] : variants.map((each) => ({ backend: 'webgpu', variant: each }) as const);
  // The processor computes in float32 only.
  const onProcessor = variants.filter((each) => activationsOf(manifest, each) === 'float32').map((each) => ({ backend: 'wasm', variant: each }) as const);
  return [...onGpu, ...onProcessor];
}

/** Nothing is tried twice, and nothing that needs what is gone. */
export function ruledOut({ backend, variant }: Rung, failures: readonly Failure[]): boolean {
  return failures.some((failure) => failure.backend === backend && (failure.variant === variant || GPU_GONE.has(failure.code)));
}
