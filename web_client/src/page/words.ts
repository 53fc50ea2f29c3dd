/** The sentences that describe a state; no DOM, so that they are tested as text. */
import type { AnswerStats, Backend, SplitState } from '../api';
import { bytes, bytesOf, count, milliseconds, percent, rate } from './format';
import type { Answer } from './conversation';
import { openAnswer, type State } from './state';

export const BACKEND_NAMES: Readonly<Record<Backend, string>> = { webgpu: 'WebGPU', wasm: 'wasm', none: 'server only' };

/** What the Split status says. It changes only when the split, the backend or the connection does. */
export function headline(state: State): string {
  if (state.engineFailure !== null) return 'Not connected';
  // Blocks that arrive meanwhile may have said that there is no session.
  if (state.place !== null) return `The server is full; you are number ${String(state.place)} in line.`;
  if (state.phase === 'disconnected') return 'Not connected';
  if (state.phase === 'connecting') return 'Connecting…';
  if (state.split === null) return 'Preparing…';
  return blocksHere(state.split.split, state.split.blocks);
}

export function blocksHere(here: number, blocks: number): string {
  return `${String(here)} of ${String(blocks)} blocks in your browser`;
}

const CONNECTS_AGAIN = 'Your next question connects again.';
const GOES_ON = 'Connecting again; the answer goes on then.';

/** What the engine is doing now; this one may change many times a second. */
export function phaseText(state: State): string {
  if (state.engineFailure !== null) return CONNECTS_AGAIN;
  if (state.place !== null) return headline(state);
  switch (state.phase) {
    case 'connecting':
      return openAnswer(state)?.status === 'streaming' ? GOES_ON : 'Connecting…';
    case 'downloading':
      return downloadText(state);
    case 'paused':
      return 'Download paused';
    case 'compiling':
      return 'Compiling…';
    case 'measuring':
      return 'Measuring…';
    case 'ready':
      return 'Ready';
    case 'disconnected':
      return openAnswer(state) === null ? CONNECTS_AGAIN : GOES_ON;
  }
}

/** Blocks are on their way: each is downloaded, compiled and, the first one, measured. */
export function isArriving(state: State): boolean {
  return state.phase === 'downloading' || state.phase === 'paused' || state.phase === 'compiling' || state.phase === 'measuring';
}

function downloadText(state: State): string {
  const blocks = state.split?.blocks ?? 0;
  return blocks > state.blocksReady ? `Downloading block ${String(state.blocksReady + 1)} of ${String(blocks)}` : 'Downloading…';
}

/** How much of the download is here; empty while nobody knows how much there will be. */
export function amountText({ doneBytes, totalBytes }: State): string {
  return totalBytes > 0 ? bytesOf(doneBytes, totalBytes) : '';
}

/** What an answer waits for that has no place at the server yet; empty where it has one. */
export function waitText({ place }: State): string {
  if (place === null) return '';
  return place === 1 ? 'Waiting for the server; you are next.' : `Waiting for the server; ${count(place - 1, 'other')} before you.`;
}

/** The quiet line under a finished answer, in its parts; where the server has several `models`, with the one that answered. */
export function answerFigures(answer: Answer, models: readonly string[] = []): readonly string[] {
  const parts: string[] = [];
  if (models.length > 1 && answer.split?.model) parts.push(answer.split.model);
  if (answer.stats !== null && answer.stats.tokens > 0) parts.push(...statsParts(answer.stats, answer.split));
  if (answer.finishReason === 'length') parts.push('cut at the token limit');
  // An answer without a word says so in its place.
  if (answer.status === 'stopped' && answer.text !== '') parts.push('stopped');
  return parts;
}

function statsParts(stats: AnswerStats, split: SplitState | null): string[] {
  const parts: string[] = [];
  if (stats.ttftMs !== null) parts.push(`TTFT ${milliseconds(stats.ttftMs)}`);
  if (stats.tpotMs !== null) parts.push(`${rate(stats.tpotMs)} tokens/s`);
  parts.push(count(stats.tokens, 'token'));
  if (split !== null) parts.push(blocksHere(split.split, split.blocks));
  return parts;
}

/** How much this device may be given, and of a model with so many blocks. */
export function effortText(effort: number | null, blocks: number | null): string {
  if (effort === null) return 'all it can';
  if (effort === 0) return 'none';
  return blocks === null ? `up to ${percent(effort)}` : `up to ${count(Math.floor(effort * blocks), 'block')}`;
}

/** What a token of the last answer took on each side; null before there was one, or where all of it ran on the server. */
export function tokenTimes(stats: AnswerStats | null, split: SplitState): { readonly here: string; readonly there: string } | null {
  if (stats?.tpotMs == null) return null;
  if (split.split === 0 || stats.browserTpotMs === null) return { here: '', there: `${milliseconds(stats.tpotMs)} a token` };
  const rest = Math.max(0, stats.tpotMs - stats.browserTpotMs);
  return { here: `${milliseconds(stats.browserTpotMs)} a token`, there: `${milliseconds(rest)} with the network` };
}

/** What the last answer sent and got. */
export function trafficText({ sentBytes, receivedBytes }: AnswerStats): string {
  return `${bytes(sentBytes)} up, ${bytes(receivedBytes)} down`;
}

/** The picture in words, for those who do not see it. */
export function pictureText(split: SplitState): string {
  const { blocks } = split;
  const here = split.split;
  if (here === 0) return `All ${count(blocks, 'block')}, the embedding and the head run on the server.`;
  const browser = `Your browser: the embedding and ${blockSpan(0, here)}.`;
  return `${browser} Server: ${here < blocks ? `${blockSpan(here, blocks)} and the head` : 'only the head'}.`;
}

/** Blocks of the half-open span, counted from 1 as people do. */
function blockSpan(start: number, end: number): string {
  return end - start === 1 ? `block ${String(end)}` : `blocks ${String(start + 1)} to ${String(end)}`;
}
