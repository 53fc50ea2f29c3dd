/** The manifest: what the bundle holds (protocol/BUNDLE.md). */
import { Validator } from '@cfworker/json-schema';
import type { Schema } from '@cfworker/json-schema';
import schema from '../../../protocol/schemas/manifest.schema.json';
import { BundleError } from '../protocol/errors';
import { parseStrictJson } from '../protocol/json';
import { canVerify, sha256 } from './digest';
import { fetchSmall } from './fetching';
import type { Source } from './fetching';
import type { Manifest } from './manifest.generated';
import { SIGNATURE_LIMIT, SIGNATURE_NAME, checkSignature } from './signature';
import type { Bytes } from './store';

export type { Manifest } from './manifest.generated';

/** A manifest names a few files a block; this is a thousand blocks with room to spare. */
const MANIFEST_LIMIT_BYTES = 16 * 2 ** 20;

export interface IdentifiedManifest {
  readonly manifest: Manifest;
  /** SHA-256 of the manifest's bytes, or null where the browser cannot hash. */
  readonly identity: string | null;
}

/** With `trusted` keys, one of them must have signed it; that is looked at before anything in it is. */
export async function fetchManifest(source: Source, trusted: readonly string[]): Promise<IdentifiedManifest> {
  const bytes = await fetchSmall(source, 'manifest.json', MANIFEST_LIMIT_BYTES);
  if (trusted.length > 0) await checkSignature(bytes, await fetchSignature(source), trusted);
  return { manifest: readManifest(bytes), identity: canVerify() ? await sha256(bytes) : null };
}

async function fetchSignature(source: Source): Promise<Bytes | null> {
  try {
    return await fetchSmall(source, SIGNATURE_NAME, SIGNATURE_LIMIT);
  } catch (error) {
    if (error instanceof BundleError && error.code === 'bundle_missing') return null;
    throw error;
  }
}

/** Throws `bundle_manifest` when the bytes are no manifest of a format that is known here. */
export function readManifest(bytes: Uint8Array): Manifest {
  let value: unknown;
  try {
    value = parseStrictJson(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw unreadable('it is not JSON');
  }
  if (typeof value === 'object' && value !== null && 'format_version' in value && value.format_version !== 1) {
    throw unreadable('its format version is not 1; reload the page to get the newest client');
  }
  const { valid, errors } = new Validator(schema as Schema, '2020-12').validate(value);
  const manifest = value as Manifest;
  if (!valid) throw unreadable(`${errors.at(-1)?.instanceLocation ?? '#'}: ${errors.at(-1)?.error ?? 'it does not match the schema'}`);
  if (manifest.blocks.length !== manifest.model.blocks) throw unreadable(`it lists ${manifest.blocks.length} blocks and speaks of ${manifest.model.blocks}`);
  return manifest;
}

const unreadable = (why: string): BundleError => new BundleError('bundle_manifest', `The server's bundle cannot be read: ${why}.`);
