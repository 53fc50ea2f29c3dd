import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { TextCodec } from '../../src/text/codec';

const bundle = new URL('../../../demo/bundle/', import.meta.url);
const manifest = JSON.parse(readFileSync(new URL('manifest.json', bundle), 'utf8')) as {
  tokenizer: { file: string; chat_template: string; bos_token: string | null; eos_token: string | null };
};
const codec = new TextCodec(readFileSync(new URL(manifest.tokenizer.file, bundle), 'utf8'), manifest.tokenizer.chat_template, manifest.tokenizer);

test('text survives the way to ids and back', () => {
  for (const text of ['Hello! What is the capital of France?', 'naïve café', '日本語 👍', '  two  spaces\n\n', '1 + 2 = 3']) {
    expect(codec.decode(codec.encode(text))).toBe(text);
  }
});

test('the template marks who speaks, and its marks are single tokens that decoding leaves out', () => {
  const prompt = codec.encodeChat([{ role: 'user', content: 'Hi' }]);
  const content = codec.encode('Hi');
  expect(prompt.length).toBeGreaterThan(content.length);
  expect(prompt.join()).toContain(content.join());
  expect(codec.decode(prompt)).not.toContain('<|');
});

test('the next prompt begins with the last, so that only what is new is computed', () => {
  const first = codec.encodeChat([{ role: 'user', content: 'Hi' }]);
  const second = codec.encodeChat([
    { role: 'user', content: 'Hi' },
    { role: 'assistant', content: 'Hello.' },
    { role: 'user', content: 'Bye' },
  ]);
  expect(second.slice(0, first.length)).toEqual(first);
});

test('a template or a tokenizer that cannot be read says so', () => {
  expect(() => new TextCodec('{}', '', manifest.tokenizer)).toThrow(expect.objectContaining({ code: 'tokenizer_unreadable' }));
});
