/** The codec against anything: what comes back is what PROTOCOL.md admits, and no error but a ProtocolError leaves it. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { ProtocolError } from '../../src/protocol/errors';
import { decodeFrame, encodeFrame } from '../../src/protocol/frame';
import { decodeMessage } from '../../src/protocol/message';

const vectors = <T>(name: string): T[] => JSON.parse(readFileSync(new URL(`../../../protocol/vectors/${name}.json`, import.meta.url), 'utf8')) as T[];

/** Marsaglia's xorshift32 ("Xorshift RNGs", 2003): the same numbers in every run. */
function chances(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

function attempt<T>(decode: () => T): { value: T } | { error: ProtocolError } {
  try {
    return { value: decode() };
  } catch (error) {
    expect(error, 'only a ProtocolError may leave the decoder').toBeInstanceOf(ProtocolError);
    return { error: error as ProtocolError };
  }
}

describe('frames', () => {
  const valid = vectors<{ hex: string; valid: boolean }>('frames')
    .filter((vector) => vector.valid)
    .map((vector) => Buffer.from(vector.hex.replaceAll(' ', ''), 'hex'));
  const LIMIT = 2 ** 31 - 1;
  const WORDS = [0, 1, 2, 31, 32, 255, 65536, LIMIT - 1, LIMIT, LIMIT + 1, 2 ** 32 - 1];
  const SIZES = [0, 4, 2, 4];

  /** Whether the table of PROTOCOL.md, section 2, admits the bytes. */
  function admitted(bytes: Buffer): boolean {
    if (bytes.length < 32 || bytes.toString('latin1', 0, 4) !== 'SPLM' || bytes[4] !== 1 || bytes[7] !== 0) return false;
    const [kind, dtype] = [bytes[5] ?? 0, bytes[6] ?? 0];
    if (!(kind === 2 ? [1, 2] : kind === 1 || kind === 3 ? [3] : []).includes(dtype)) return false;
    const [turn, position, rows, columns, payload, reserved] = [8, 12, 16, 20, 24, 28].map((at) => bytes.readUInt32LE(at)) as [number, number, number, number, number, number];
    if (turn < 1 || turn > LIMIT || rows < 1 || position + rows > LIMIT || reserved !== 0) return false;
    if (kind === 2 ? columns < 1 || columns > LIMIT : columns !== 1) return false;
    return BigInt(payload) === BigInt(rows) * BigInt(columns) * BigInt(SIZES[dtype] ?? 0) && bytes.length === 32 + payload;
  }

  test.each([1, 2])('changed bytes and fields, seed %i', (seed) => {
    const chance = chances(seed * 7919);
    const counts = { admitted: 0, refused: 0 };
    for (let round = 0; round < 2000; round += 1) {
      let bytes = Buffer.from(valid[chance(valid.length)] ?? []);
      for (let change = chance(3); change > 0; change -= 1) {
        const at = chance(bytes.length);
        const how = chance(5);
        if (how === 0 && bytes.length > at) bytes[at] = chance(256);
        else if (how === 1 && bytes.length >= 32) bytes.writeUInt32LE(WORDS[chance(WORDS.length)] ?? 0, 8 + 4 * chance(6));
        else if (how === 2) bytes = bytes.subarray(0, at);
        else if (how === 3) bytes = Buffer.concat([bytes, Buffer.alloc(1 + chance(9))]);
        else if (how === 4 && bytes.length > 32) bytes.fill(chance(256), 32); // NaN, infinities and all other values pass
      }
      if (bytes.length === 0) continue;
      const whole = new Uint8Array(bytes).buffer; // at offset 0 of a buffer of its own, as it comes from a socket
      const outcome = attempt(() => decodeFrame(whole));
      expect('value' in outcome, bytes.toString('hex')).toBe(admitted(bytes));
      if ('value' in outcome) {
        counts.admitted += 1;
        expect(outcome.value.values.buffer).toBe(whole);
        expect(Buffer.from(encodeFrame(outcome.value)).equals(bytes)).toBe(true);
      } else {
        counts.refused += 1;
        expect(outcome.error.code).toBe('malformed_frame');
      }
    }
    expect(counts.admitted).toBeGreaterThan(200);
    expect(counts.refused).toBeGreaterThan(200);
  });

  test('a giant claim takes no memory', () => {
    const bytes = new ArrayBuffer(96);
    const view = new DataView(bytes);
    new Uint8Array(bytes).set([0x53, 0x50, 0x4c, 0x4d, 1, 2, 1, 0]);
    view.setUint32(8, 1, true);
    for (const [rows, columns, payload] of [[LIMIT, LIMIT, LIMIT], [2 ** 30, 2 ** 30, 0], [1, 2 ** 29 - 1, 4 * (2 ** 29 - 1)]] as const) {
      view.setUint32(16, rows, true);
      view.setUint32(20, columns, true);
      view.setUint32(24, payload, true);
      const before = process.memoryUsage().arrayBuffers;
      expect(attempt(() => decodeFrame(bytes))).toHaveProperty('error.code', 'malformed_frame');
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1 << 20);
    }
  });
});

describe('messages', () => {
  const valid = vectors<{ text: string; from: 'client' | 'server'; valid: boolean; repeat?: unknown }>('messages').filter((vector) => vector.valid && vector.repeat === undefined);
  const PIECES = ['', '{', '}', '[', ']', '"', ':', ',', '\\', '\\ud800', '\ud800', '\u0000', '1e999', '-0', '9'.repeat(400), 'null', '"type":', '{"a":1,"a":2}', '[['.repeat(3000), '__proto__'];

  test.each([1, 2])('torn and patched text, seed %i', (seed) => {
    const chance = chances(seed * 104729);
    const counts = { admitted: 0, refused: 0 };
    for (let round = 0; round < 400; round += 1) {
      const vector = valid[chance(valid.length)];
      if (vector === undefined) continue;
      let { text } = vector;
      for (let change = chance(3); change > 0; change -= 1) {
        const at = chance(text.length + 1);
        text = text.slice(0, at) + (PIECES[chance(PIECES.length)] ?? '') + text.slice(at + chance(4));
      }
      const outcome = attempt(() => decodeMessage(text, vector.from));
      if ('value' in outcome) {
        counts.admitted += 1;
        expect(outcome.value).toStrictEqual(JSON.parse(text, (_name, value: unknown) => (typeof value === 'number' ? value + 0 : value)));
        expect(Object.getPrototypeOf(outcome.value)).toBe(Object.prototype);
      } else {
        counts.refused += 1;
        expect(outcome.error.code).toBe('malformed_message');
      }
    }
    expect(counts.admitted).toBeGreaterThan(50);
    expect(counts.refused).toBeGreaterThan(100);
  });

  test.each([
    ['depth', '['.repeat(200_000)],
    ['closed depth', `{"type":"error","x":${'['.repeat(100_000)}${']'.repeat(100_000)}}`],
    ['one long string', `{"type":"error","message":"${'a'.repeat(4_000_000)}"}`],
    ['many escapes', `{"type":"error","message":"${'\\u0061'.repeat(500_000)}"}`],
    ['many members', `{"type":"error",${Array.from({ length: 10_000 }, (_, index) => `"x${index}":0`).join(',')}}`],
    ['an unclosed string', `{"type":"${'\\"'.repeat(500_000)}`],
  ])('%s is refused', (_name, text) => {
    expect(attempt(() => decodeMessage(text, 'server'))).toHaveProperty('error.code', 'malformed_message');
  });
});
