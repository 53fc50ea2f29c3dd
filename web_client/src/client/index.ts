/**
 * SplitLLM for other pages: `import { createEngine } from 'https://your.server/engine/v1.js'`. The chat page is built on it too.
 * docs/embedding.md tells how.
 */
import type { EngineOptions } from '../api';
import { SplitLLMError } from '../protocol/errors';
import { checkApiKey, readTrustedKey } from '../protocol/keys';
import { engineOver, type Engine } from './engine';
import { startWorker } from './worker';

export type * from '../api';
export type { Answer, AnswerOptions, AnswerResult, Engine, EngineNews } from './engine';
export { PROTOCOL_VERSION } from '../protocol/version';
export { SplitLLMError };

/**
 * Connects at once, and lets blocks arrive in the background; the first answer waits for none of them. `server` is the address of a
 * server, by default that of the one this module came from. Throws `SplitLLMError` for what is no address or no key.
 */
export function createEngine(server: string | URL = import.meta.url, options: Partial<Omit<EngineOptions, 'server'>> = {}): Engine {
  if (!URL.canParse(server)) throw new SplitLLMError('server_address', `“${String(server)}” is no address of a server; give one such as https://llm.example.org.`);
  const { apiKey, trustedKey } = options;
  if (apiKey !== undefined) checkApiKey(apiKey);
  if (trustedKey !== undefined) {
    // A list that is empty by mistake must not trust everybody.
    for (const key of trustedKey.length ? [trustedKey].flat() : ['']) readTrustedKey(key);
  }
  const { origin } = new URL(server);
  return engineOver(startWorker(), { split: 'auto', backend: 'auto', variant: 'auto', wire: 'float16', effort: null, ...options, server: origin });
}
