import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { decodeFrame, encodeFrame } from '../../src/protocol/frame';
import { fromFloat16 } from '../../src/protocol/float16';
import { decodeMessage } from '../../src/protocol/message';

interface FrameVector {
  name: string;
  hex: string;
  valid: boolean;
  code?: string;
  fields?: { kind: string; dtype: string; turn: number; position: number; rows: number; columns: number; values: (number | string)[] };
}

interface MessageVector {
  name: string;
  from: 'client' | 'server';
  text: string;
  valid: boolean;
  code?: string;
  /** What a valid text means, where that is not plain. */
  value?: unknown;
  /** `<repeat>` in the text stands for `char`, `count` times, and then `close`, as often. */
  repeat?: { char: string; count: number; close?: string };
}

const vectors = <T>(name: string): T[] => JSON.parse(readFileSync(new URL(`../../../protocol/vectors/${name}.json`, import.meta.url), 'utf8')) as T[];

const bytesOf = (hex: string): ArrayBuffer => new Uint8Array(Buffer.from(hex.replaceAll(' ', ''), 'hex')).buffer;
const named = (value: number | string): number => (typeof value === 'number' ? value : { nan: NaN, inf: Infinity, '-inf': -Infinity }[value] ?? expect.fail(value));

describe('frames', () => {
  test.each(vectors<FrameVector>('frames'))('$name', ({ hex, valid, fields, code }) => {
    const bytes = bytesOf(hex);
    if (!valid) {
      expect(() => decodeFrame(bytes)).toThrow(expect.objectContaining({ name: 'ProtocolError', code }));
      return;
    }
    const frame = decodeFrame(bytes);
    const { values, ...header } = frame;
    const read = frame.dtype === 'float16' ? fromFloat16(frame.values) : frame.values;
    expect({ ...header, values: [...read] }).toStrictEqual({ ...fields, values: fields?.values.map(named) });
    expect(values.buffer, 'the payload is viewed in place').toBe(bytes);
    expect(Buffer.from(encodeFrame(frame)), 'a frame is written as it was read').toStrictEqual(Buffer.from(bytes));
  });
});

describe('messages', () => {
  test.each(vectors<MessageVector>('messages'))('$name', ({ from, text, valid, value, code, repeat }) => {
    const whole = repeat ? text.replace('<repeat>', repeat.char.repeat(repeat.count) + (repeat.close ?? '').repeat(repeat.count)) : text;
    if (valid) expect(decodeMessage(whole, from)).toStrictEqual(value ?? JSON.parse(whole));
    else expect(() => decodeMessage(whole, from)).toThrow(expect.objectContaining({ name: 'ProtocolError', code }));
  });
});
