/** What the bundle says about the model: its manifest, its text and its files. */
import { canVerify } from '../bundle/digest';
import type { Source } from '../bundle/fetching';
import { BundleFiles } from '../bundle/files';
import type { KeptFiles } from '../bundle/kept';
import { fetchManifest } from '../bundle/manifest';
import type { Manifest } from '../bundle/manifest';
import { BundleError, SessionError } from '../protocol/errors';
import { TextCodec } from '../text/codec';

export interface Model {
  readonly manifest: Manifest;
  /** SHA-256 of the manifest's bytes; null where this page cannot hash, and then no weights are loaded either. */
  readonly identity: string | null;
  readonly files: BundleFiles;
  readonly codec: TextCodec;
}

/** Throws `unknown_model` where the server has none of that name. */
export async function loadModel(source: Source, trusted: readonly string[], kept: KeptFiles): Promise<Model> {
  const { manifest, identity } = await fetchManifest(source, trusted).catch((error: unknown) => {
    if (source.model == null || !(error instanceof BundleError) || error.code !== 'bundle_missing') throw error;
    throw new SessionError('unknown_model', `The server has no model “${source.model}”; choose another one, or none for its first.`);
  });
  const files = new BundleFiles(source, manifest.files, kept);
  const { file, chat_template: template, bos_token, eos_token } = manifest.tokenizer;
  const tokenizer = new TextDecoder().decode(await (canVerify() ? files.read(file) : files.readUnverified(file)));
  return { manifest, identity, files, codec: new TextCodec(tokenizer, template, { bos_token, eos_token }) };
}
