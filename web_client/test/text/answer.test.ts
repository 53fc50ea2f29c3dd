import { describe, expect, test } from 'vitest';
import { AnswerText } from '../../src/text/answer';
import { StreamDecoder } from '../../src/text/stream_decoder';

/** A byte-level tokenizer in which every id is a byte. */
const utf8 = (ids: readonly number[]): string => new TextDecoder().decode(Uint8Array.from(ids));
const bytes = (text: string): number[] => [...new TextEncoder().encode(text)];
/** A tokenizer in which every id is a character. */
const letters = (ids: readonly number[]): string => String.fromCodePoint(...ids);
const ids = (text: string): number[] => Array.from(text, (letter) => letter.codePointAt(0) ?? 0);

describe('decoding a stream', () => {
  test.each(['hello', 'naïve café', '日本語', 'a 👩‍👩‍👧 family', '🇫🇷'])('%s comes out whole, byte by byte', (text) => {
    const decoder = new StreamDecoder(utf8);
    const parts = bytes(text).map((byte) => decoder.push([byte]));
    expect(parts.join('') + decoder.finish()).toBe(text);
    expect(parts.filter((part) => part.includes('\ufffd'))).toEqual([]);
  });

  test('several tokens may come at once', () => {
    const decoder = new StreamDecoder(utf8);
    expect(decoder.push(bytes('héllo').slice(0, 2))).toBe('');
    expect(decoder.push(bytes('héllo').slice(2))).toBe('héllo');
  });

  test('a character that never became whole comes at the end', () => {
    const decoder = new StreamDecoder(utf8);
    expect(decoder.push(bytes('a日').slice(0, 3))).toBe('');
    expect(decoder.finish()).toBe('a\ufffd');
  });

  test('text longer than the window is decoded the same', () => {
    const text = 'Über '.repeat(40) + '終';
    const decoder = new StreamDecoder(utf8);
    expect(bytes(text).map((byte) => decoder.push([byte])).join('')).toBe(text);
  });
});

describe('stop strings', () => {
  const stream = (text: string, stop: string[]): { shown: string; text: string; stopped: boolean } => {
    const answer = new AnswerText(letters, stop);
    const shown = ids(text).map((id) => answer.push([id])).join('');
    const { rest, text: whole } = answer.finish();
    return { shown: shown + rest, text: whole, stopped: answer.stopped };
  };

  test('the answer is cut before a stop string, and no part of it is ever shown', () => {
    expect(stream('One.\nUser: two', ['\nUser:'])).toEqual({ shown: 'One.', text: 'One.', stopped: true });
  });

  test('what only looked like one is shown', () => {
    expect(stream('One.\nUsed', ['\nUser:'])).toEqual({ shown: 'One.\nUsed', text: 'One.\nUsed', stopped: false });
  });

  test('of several the one that begins first counts', () => {
    expect(stream('abcdef', ['def', 'cd']).text).toBe('ab');
  });

  test('the beginning of a stop string at the end of the answer is text after all', () => {
    const answer = new AnswerText(letters, ['###']);
    expect(answer.push(ids('ok #'))).toBe('ok ');
    expect(answer.push(ids('#'))).toBe('');
    expect(answer.finish()).toEqual({ rest: '##', text: 'ok ##' });
  });

  test('a stop string that overlaps itself is found', () => {
    expect(stream('xaaab', ['aab']).text).toBe('xa');
  });
});
