import { describe, expect, it } from 'vitest';
import type { Diagnostics } from '../../src/api';
import { engineOver, type Answer, type Engine, type EngineNews } from '../../src/client/engine';
import { RuntimeError } from '../../src/protocol/errors';
import { failure, finished, splitState, STATS, text } from '../page/fixtures';
import { FakePort, OPTIONS, settled } from './fake_port';

function begin(): { port: FakePort; engine: Engine; news: EngineNews[] } {
  const port = new FakePort();
  const engine = engineOver(port, OPTIONS);
  const news: EngineNews[] = [];
  engine.listen((each) => news.push(each));
  return { port, engine, news };
}

async function pieces(answer: Answer): Promise<readonly string[]> {
  const taken: string[] = [];
  for await (const piece of answer) taken.push(piece);
  return taken;
}

describe('an answer', () => {
  it('comes piece by piece, and whole', async () => {
    const { port, engine } = begin();
    const answer = engine.answer('Hello?');
    expect(port.commands.at(-1)).toEqual({
      type: 'ask',
      ask: 1,
      messages: [{ role: 'user', content: 'Hello?' }],
      begin: '',
      sampling: { temperature: 0, topP: 1, topK: 0, minP: 0, repetitionPenalty: 1, seed: null },
      maxTokens: 256,
      stop: [],
    });
    const taken = pieces(answer);
    await port.emit(text(1, 'He'));
    await port.emit(text(1, 'llo.'));
    await port.emit(finished(1, 'Hello.'));
    expect(await taken).toEqual(['He', 'llo.']);
    expect(await answer.result).toEqual({ text: 'Hello.', finishReason: 'stop', stats: STATS });
  });

  it('waits for who takes its time', async () => {
    const { port, engine } = begin();
    const answer = engine.answer('Hello?');
    await port.emit(text(1, 'He'));
    await port.emit(text(1, 'llo.'));
    await port.emit(finished(1, 'Hello.'));
    expect(await pieces(answer)).toEqual(['He', 'llo.']);
    expect(await pieces(answer)).toEqual([]);
  });

  it('gets its own text and no other', async () => {
    const { port, engine } = begin();
    const [one, two] = [pieces(engine.answer('One?')), pieces(engine.answer('Two?'))];
    await port.emit(text(2, 'Second.'));
    await port.emit(text(1, 'First.'));
    await port.emit(finished(2, 'Second.'));
    await port.emit(finished(1, 'First.'));
    expect([await one, await two]).toEqual([['First.'], ['Second.']]);
  });

  it('is stopped by its signal, which is no failure', async () => {
    const { port, engine } = begin();
    const stopping = new AbortController();
    const answer = engine.answer('Hello?', { signal: stopping.signal });
    const taken = pieces(answer);
    await port.emit(text(1, 'He'));
    stopping.abort();
    expect(port.commands.at(-1)).toEqual({ type: 'stop', ask: 1 });
    await port.emit(finished(1, 'He', 'cancelled'));
    expect(await taken).toEqual(['He']);
    expect((await answer.result).finishReason).toBe('cancelled');
  });

  it('is stopped at once by a signal that was there before it, and not by one that comes after its end', async () => {
    const { port, engine } = begin();
    engine.answer('Hello?', { signal: AbortSignal.abort() });
    expect(port.types).toEqual(['connect', 'ask', 'stop']);
    await port.emit(finished(1, '', 'cancelled'));
    const stopping = new AbortController();
    engine.answer('Hello?', { signal: stopping.signal });
    await port.emit(finished(2, 'Hello.'));
    stopping.abort();
    expect(port.types).toEqual(['connect', 'ask', 'stop', 'ask']);
  });

  it('is stopped by who leaves the loop', async () => {
    const { port, engine } = begin();
    const answer = engine.answer('Hello?');
    await port.emit(text(1, 'He'));
    for await (const piece of answer) {
      expect(piece).toBe('He');
      break;
    }
    expect(port.commands.at(-1)).toEqual({ type: 'stop', ask: 1 });
  });

  it('fails where it is iterated and where it is awaited, after what it had', async () => {
    const { port, engine, news } = begin();
    const answer = engine.answer('Hello?');
    await port.emit(text(1, 'He'));
    await port.emit(failure(1));
    const taken: string[] = [];
    await expect(async () => {
      for await (const piece of answer) taken.push(piece);
    }).rejects.toMatchObject({ code: 'broken', message: 'It broke.' });
    expect(taken).toEqual(['He']);
    await expect(answer.result).rejects.toMatchObject({ code: 'broken' });
    expect(news).toEqual([]);
  });
});

describe('an engine', () => {
  it('tells what belongs to no answer, as long as somebody listens', async () => {
    const { port, engine, news } = begin();
    const heard: EngineNews[] = [];
    const leave = engine.listen((each) => heard.push(each));
    const split = { type: 'split', state: splitState(3) } as const;
    await port.emit(split);
    leave();
    await port.emit(failure(null));
    expect(heard).toEqual([split]);
    expect(news).toEqual([split, failure(null)]);
  });

  it('whose worker dies fails every answer, those that are asked for later too', async () => {
    const { port, engine, news } = begin();
    const before = engine.answer('Hello?');
    await port.die(new RuntimeError('worker_failed', 'It died.'));
    await expect(before.result).rejects.toMatchObject({ code: 'worker_failed' });
    await expect(engine.answer('Still there?').result).rejects.toMatchObject({ code: 'worker_failed' });
    expect(news).toEqual([{ type: 'failed', ask: null, code: 'worker_failed', sentence: 'It died.' }]);
  });

  it('that is closed ends its worker and its answers', async () => {
    const { port, engine } = begin();
    const answer = engine.answer('Hello?');
    engine.close();
    expect(port.closed).toBe(true);
    await expect(pieces(answer)).rejects.toMatchObject({ code: 'closed' });
    await settled();
  });

  it('hands diagnostics to whoever asked', async () => {
    const { port, engine } = begin();
    const diagnostics: Diagnostics = { adapter: null, backend: 'wasm', split: 2, blockRuns: [1, 1], kvLocations: ['cpu', 'cpu'], crossOriginIsolated: false, log: [] };
    const [one, two] = [engine.diagnostics(), engine.diagnostics()];
    await port.emit({ type: 'diagnostics', diagnostics });
    expect(await one).toBe(diagnostics);
    expect(await two).toBe(diagnostics);
  });
});
