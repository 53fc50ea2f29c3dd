/**
 * The peer: all blocks as one graph under the same onnxruntime-web, in a worker, as good as it gets. On WebGPU an own device, keys and
 * values in place on the GPU, one run and one reading back for a step; on wasm as many threads as the page takes.
 */
import * as ort from '/ort/ort.webgpu.min.mjs';

ort.env.wasm.wasmPaths = '/ort/';
ort.env.logLevel = 'error';

const LIMITS = ['maxBufferSize', 'maxStorageBufferBindingSize', 'maxComputeWorkgroupStorageSize', 'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX', 'maxComputeWorkgroupSizeY', 'maxComputeWorkgroupSizeZ', 'maxStorageBuffersPerShaderStage'];

let device = null;
let session, shape, caches;

const bytes = async (url) => new Uint8Array(await (await fetch(url)).arrayBuffer());

async function load({ folder, backend, threads, ...sizes }) {
  shape = sizes;
  ort.env.wasm.numThreads = threads;
  if (backend === 'webgpu') {
    const adapter = await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' });
    const requiredFeatures = ['shader-f16', ...(adapter.info.subgroupMinSize >= 8 ? ['subgroups'] : [])].filter((name) => adapter.features.has(name));
    device = await adapter.requestDevice({ requiredFeatures, requiredLimits: Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]])) });
  }
  const locations = { hidden_states_out: 'gpu-buffer' };
  session = await ort.InferenceSession.create(await bytes(`${folder}/graph.onnx`), {
    executionProviders: [device === null ? 'wasm' : { name: 'webgpu', device }],
    ...(device === null ? {} : { preferredOutputLocation: locations, extra: { session: { disable_cpu_ep_fallback: '1' } } }),
    externalData: [{ path: 'graph.bin', data: await bytes(`${folder}/graph.bin`) }],
    logSeverityLevel: 3,
  });
}

function emptyCaches() {
  const { blocks, kvHeads, headDim, capacity } = shape;
  caches = {};
  for (let block = 0; block < blocks; block += 1) {
    for (const kind of ['key', 'value']) {
      const dims = [1, kvHeads, device === null ? 0 : capacity, headDim];
      const name = `${kind}.${block}`;
      if (device === null) {
        caches[name] = new ort.Tensor('float32', new Float32Array(0), dims);
      } else {
        const size = 4 * kvHeads * capacity * headDim;
        const buffer = device.createBuffer({ size, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST });
        caches[name] = ort.Tensor.fromGpuBuffer(buffer, { dataType: 'float32', dims, dispose: () => buffer.destroy() });
      }
    }
  }
}

async function step(position, embedded) {
  const rows = embedded.length / shape.hidden;
  const feeds = {
    hidden_states: new ort.Tensor('float32', embedded, [1, rows, shape.hidden]),
    seqlens_k: new ort.Tensor('int32', Int32Array.of(position + rows - 1), [1]),
    total_sequence_length: new ort.Tensor('int32', Int32Array.of(position + rows), []),
  };
  const fetches = { hidden_states_out: null };
  for (const [name, tensor] of Object.entries(caches)) {
    feeds[`past_${name}`] = tensor;
    fetches[`present_${name}`] = device === null ? null : tensor;
  }
  const outputs = await session.run(feeds, fetches);
  if (device === null) for (const name of Object.keys(caches)) caches[name] = outputs[`present_${name}`];
  return outputs.hidden_states_out.getData(true);
}

/** A prompt of `prompt` rows, then `steps` single ones; milliseconds of a single one, on average, and the last values. */
async function decode({ prompt, steps }) {
  emptyCaches();
  const row = (position) => Float32Array.from({ length: shape.hidden }, (_, column) => Math.sin(position * 31 + column));
  await step(0, Float32Array.from(Array.from({ length: prompt }, (_, position) => [...row(position)]).flat()));
  const started = performance.now();
  let last;
  for (let position = prompt; position < prompt + steps; position += 1) last = await step(position, row(position));
  const ms = (performance.now() - started) / steps;
  for (const tensor of Object.values(caches)) tensor.dispose();
  return { ms, last: Array.from(last) };
}

const calls = { load, decode };
self.onmessage = async ({ data: { call, argument } }) => {
  try {
    self.postMessage({ result: await calls[call](argument) });
  } catch (error) {
    self.postMessage({ error: String(error) });
  }
};
