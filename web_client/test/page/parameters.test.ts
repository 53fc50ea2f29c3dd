import { describe, expect, it } from 'vitest';
import { parseParameters } from '../../src/page/parameters';

const ORIGIN = 'http://127.0.0.1:8000';
const parse = (search: string): ReturnType<typeof parseParameters> => parseParameters(search, ORIGIN);

describe('URL parameters', () => {
  it('have defaults that need no notice', () => {
    expect(parse('')).toEqual({
      options: { server: ORIGIN, split: 'auto', backend: 'auto', variant: 'auto', wire: 'float16', effort: null },
      settings: { temperature: 0, topP: 1, maxTokens: 256, seed: null, keepWeights: true, lessData: false, model: null, effort: null, instructions: '' },
      notices: [],
    });
  });

  it('are all read', () => {
    const { options, settings, notices } = parse('?split=3&backend=wasm&variant=int4&wire=float32&temperature=0.7&seed=42&max_tokens=16&effort=0.25');
    expect(options).toEqual({ server: ORIGIN, split: 3, backend: 'wasm', variant: 'int4', wire: 'float32', effort: 0.25 });
    expect(settings).toMatchObject({ temperature: 0.7, seed: 42, maxTokens: 16 });
    expect(notices).toEqual([]);
  });

  it.each([
    ['split=0', 'split', 0],
    ['split=auto', 'split', 'auto'],
    ['backend=none', 'backend', 'none'],
    ['backend=auto', 'backend', 'auto'],
    ['variant=int4f16', 'variant', 'int4f16'],
  ] as const)('%s is allowed', (search, name, value) => {
    expect(parse(search).options[name]).toBe(value);
    expect(parse(search).notices).toEqual([]);
  });

  it.each(['split=-1', 'split=1.5', 'split=', 'split=1e2', 'split=1000', 'split=Auto', 'backend=cuda', 'variant=int2', 'wire=int8', 'wire=auto',
    'temperature=-1', 'temperature=hot', 'temperature=', 'temperature=0x1', 'temperature=2.01', 'temperature=Infinity', 'temperature=.',
    'seed=-1', 'seed=1.5', 'seed=9007199254740992', 'max_tokens=0', 'max_tokens=lots', 'effort=1.01', 'effort=-0.5', 'effort=little'])('%s is refused and the default is used', (search) => {
    const { options, settings, notices } = parse(search);
    expect({ options, settings }).toEqual({ options: parse('').options, settings: parse('').settings });
    expect(notices).toHaveLength(1);
    expect(notices[0]?.code).toBe(`parameter_${search.split('=')[0] ?? ''}`);
  });

  it('say what is allowed and what is used instead', () => {
    expect(parse('?wire=int8').notices[0]?.sentence).toBe(
      'The address asks for wire=int8, which is not possible. Allowed: float16 or float32. float16 is used instead.',
    );
    expect(parse('?backend=cuda').notices[0]?.sentence).toContain('Allowed: auto, webgpu, wasm or none.');
    expect(parse('?seed=x').notices[0]?.sentence).toContain('No value is used instead.');
  });

  it('quote no more of a bad value than a person can read', () => {
    expect(parse(`?split=${'9'.repeat(5000)}`).notices[0]?.sentence.length).toBeLessThan(200);
  });

  it('are independent of each other and of names nobody knows', () => {
    const { options, notices } = parse('?split=x&wire=float32&utm_source=y');
    expect(options).toMatchObject({ split: 'auto', wire: 'float32' });
    expect(notices.map((notice) => notice.code)).toEqual(['parameter_split']);
  });
});
