/** The WebGPU device that the blocks run on. */
import { RuntimeError } from '../protocol/errors';

export interface Gpu {
  readonly device: GPUDevice;
  readonly vendor: string;
  readonly architecture: string;
  readonly shaderF16: boolean;
}

const LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupSizeY',
  'maxComputeWorkgroupSizeZ',
  'maxComputeWorkgroupsPerDimension',
  'maxStorageBuffersPerShaderStage',
] as const;

/** Below this width of subgroups ONNX Runtime's attention over 32 rows or more is wrong without any error. */
const SAFE_SUBGROUP_SIZE = 8;

/** Our own device, because only so can the features be chosen and its loss be watched. Throws `webgpu_unavailable`. */
export async function openGpu(): Promise<Gpu> {
  const gpu = (navigator as { gpu?: GPU }).gpu;
  if (gpu === undefined) throw unavailable('This browser offers no WebGPU here');
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' }).catch(() => null);
  if (adapter === null) throw unavailable('The browser found no graphics adapter for WebGPU');

  const { info } = adapter;
  // Older browsers do not say how wide subgroups are: then they may be too narrow.
  const subgroupSize = (info as Partial<GPUAdapterInfo>).subgroupMinSize ?? 0;
  const wanted: GPUFeatureName[] = subgroupSize >= SAFE_SUBGROUP_SIZE ? ['shader-f16', 'subgroups'] : ['shader-f16'];
  const requiredLimits = Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]));
  try {
    const device = await adapter.requestDevice({ requiredLimits, requiredFeatures: wanted.filter((feature) => adapter.features.has(feature)) });
    return { device, vendor: info.vendor, architecture: info.architecture, shaderF16: adapter.features.has('shader-f16') };
  } catch {
    throw unavailable('The graphics adapter refused a WebGPU device');
  }
}

const unavailable = (what: string): RuntimeError => new RuntimeError('webgpu_unavailable', `${what}; the blocks run on the processor instead.`);
