/** The peer: transformers.js, its own runtime and its own way with a model, in a worker; files of this server alone. */
import { AutoModelForCausalLM, AutoTokenizer, BaseStreamer, env } from '/dist/transformers.min.js';

env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = '/models/';
env.backends.onnx.wasm.wasmPaths = '/runtime/';
env.backends.onnx.wasm.numThreads = navigator.hardwareConcurrency;

let tokenizer, model;

class Times extends BaseStreamer {
  all = [];
  prompt = true;

  put() {
    if (!this.prompt) this.all.push(performance.now());
    if (this.all.length === 1) self.postMessage({ first: true });
    this.prompt = false;
  }

  end() {}
}

async function load({ folder, backend, cache }) {
  env.useBrowserCache = cache;
  tokenizer = await AutoTokenizer.from_pretrained(folder);
  // It does not look for the file that transformers 4.57 keeps templates in.
  tokenizer.chat_template ??= await (await fetch(`/models/${folder}/chat_template.jinja`)).text();
  model = await AutoModelForCausalLM.from_pretrained(folder, { dtype: 'fp32', device: backend });
}

/** `steps` tokens, greedily; milliseconds of one after the first. */
async function generate({ question, steps }) {
  const inputs = tokenizer.apply_chat_template([{ role: 'user', content: question }], { add_generation_prompt: true, return_dict: true });
  const streamer = new Times();
  const output = await model.generate({ ...inputs, max_new_tokens: steps, min_new_tokens: steps, do_sample: false, streamer });
  const { all } = streamer;
  const text = tokenizer.batch_decode(output.slice(null, [inputs.input_ids.dims.at(-1), null]), { skip_special_tokens: true })[0];
  return { ms: (all.at(-1) - all[0]) / (all.length - 1), tokens: all.length, text };
}

const calls = { load, generate };
self.onmessage = async ({ data: { call, argument } }) => {
  try {
    self.postMessage({ result: await calls[call](argument) });
  } catch (error) {
    self.postMessage({ error: String(error) });
  }
};
