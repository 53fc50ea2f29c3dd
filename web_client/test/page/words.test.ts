import { describe, expect, it } from 'vitest';
import { bytesOf, count, milliseconds, percent, rate, timeLeft } from '../../src/page/format';
import type { PageEvent } from '../../src/page/state';
import { serverWork } from '../../src/page/conversation';
import { amountText, answerFigures, effortText, headline, phaseText, pictureText, tokenTimes, trafficText, waitText } from '../../src/page/words';
import { storageText } from '../../src/page/views/device_storage';
import { after, asked, failure, finished, lastAnswer, splitState, STATS, text } from './fixtures';

describe('figures', () => {
  it.each([[0, '0 ms'], [0.4, '< 1 ms'], [240.4, '240 ms'], [999.4, '999 ms'], [999.6, '1.0 s'], [1449, '1.4 s'], [12_345, '12 s']])('%s ms is %s', (ms, words) => {
    expect(milliseconds(ms)).toBe(words);
  });

  it.each([[70.4, '14.2'], [1000, '1.0'], [10, '100'], [10.004, '100'], [3, '333'], [0, '1000000']])('%s ms per token is %s tokens a second', (tpot, words) => {
    expect(rate(tpot)).toBe(words);
  });

  it.each([[2.1e6, 6.3e6, '2.1 of 6.3 MB'], [0, 3e9, '0 of 3.0 GB'], [12.34e6, 106.2e6, '12 of 106 MB'], [400, 5400, '0 of 5 kB'], [7e6, 6.3e6, '6.3 of 6.3 MB']])('%s of %s bytes is %s', (done, total, words) => {
    expect(bytesOf(done, total)).toBe(words);
  });

  it.each([[0, '1 s left'], [11_200, '12 s left'], [89_000, '89 s left'], [100_000, '2 min left'], [5_000_000, '83 min left'], [7_000_000, '2 h left']])('%s ms more is %s', (ms, words) => {
    expect(timeLeft(ms)).toBe(words);
  });

  it.each([[0, '0 %'], [0.001, '< 1 %'], [0.625, '63 %'], [0.999, '> 99 %'], [1, '100 %']])('a share of %s is %s', (share, words) => {
    expect(percent(share)).toBe(words);
  });

  it('know one from many', () => {
    expect([count(1, 'token'), count(0, 'token'), count(2, 'token')]).toEqual(['1 token', '0 tokens', '2 tokens']);
  });
});

describe('the split status', () => {
  it('says which place in line is ours, and no more once there is none', () => {
    const queued = (place: number | null) => ({ type: 'queued', place }) as const;
    expect(headline(after(queued(3)))).toBe('The server is full; you are number 3 in line.');
    expect(phaseText(after(queued(3))), 'the same, so that it is shown once').toBe(headline(after(queued(3))));
    expect(headline(after(split5, downloading, queued(3), queued(null)))).toBe('5 of 8 blocks in your browser');
    expect(headline(after(queued(3), { type: 'engine_started' }))).toBe('Connecting…');
    expect(headline(after(downloading, { ...downloading, phase: 'disconnected' }, queued(2)))).toBe('The server is full; you are number 2 in line.');
    expect(headline(after(queued(3), failure(null)))).toBe('Not connected');
  });
});

const line = (...events: PageEvent[]): string => answerFigures(lastAnswer(after(...events))).join(' · ');
const split5 = { type: 'split', state: splitState(5) } as const;
const downloading = { type: 'phase', phase: 'downloading', doneBytes: 2.1e6, totalBytes: 6.3e6, blocksReady: 2 } as const;

describe('what is kept on this device', () => {
  const storage = { kind: 'opfs', bytes: 2.1e6, otherBytes: 0, partialBytes: 0, freeBytes: null } as const;

  it('is said in bytes, with what is not of this model and the room that is left', () => {
    expect(storageText(storage)).toBe('Kept: 2.1 MB of this model.');
    expect(storageText({ ...storage, otherBytes: 4e3, partialBytes: 7, freeBytes: 9.14e9 })).toBe(
      'Kept: 2.1 MB of this model, 4.0 kB of other models and former versions, which go when room is needed, 7 B of downloads that are not complete. This browser has room for 9.1 GB more.',
    );
    expect(storageText({ ...storage, kind: 'memory', bytes: 0 })).toBe('Nothing of the model is kept on this device.');
  });
});

describe('the line under an answer', () => {
  it('has all figures', () => {
    expect(line(split5, asked(1), finished(1, 'Hi'))).toBe('TTFT 240 ms · 14.2 tokens/s · 32 tokens · 5 of 8 blocks in your browser');
  });

  it('leaves out what was not measured', () => {
    expect(line(asked(1), finished(1, 'Hi', 'stop', { ...STATS, tokens: 1, tpotMs: null }))).toBe('TTFT 240 ms · 1 token');
  });

  it('says why an answer is short', () => {
    expect(line(split5, asked(1), finished(1, 'Hi', 'length'))).toMatch(/cut at the token limit$/);
    expect(line(asked(1), text(1, 'Hi'), { type: 'stop_pressed' })).toBe('stopped');
    expect(line(asked(1), { type: 'stop_pressed' })).toBe('');
    expect(line(asked(1), { type: 'stop_pressed' }, finished(1, '', 'cancelled', { ...STATS, tokens: 0, ttftMs: null }))).toBe('');
  });
});

describe('the headline', () => {
  it('is the split as soon as it is known', () => {
    expect(headline(after())).toBe('Connecting…');
    expect(headline(after(downloading))).toBe('Preparing…');
    expect(headline(after(downloading, split5))).toBe('5 of 8 blocks in your browser');
  });

  it('does not change while tokens and bytes arrive', () => {
    const quiet = headline(after(downloading, split5));
    expect(headline(after(downloading, split5, asked(1), text(1, 'a'), downloading))).toBe(quiet);
  });

  it('does not claim a split while it connects again', () => {
    expect(headline(after(split5, { ...downloading, phase: 'connecting' }))).toBe('Connecting…');
  });

  it('says when there is no connection', () => {
    expect(headline(after(split5, failure(null)))).toBe('Not connected');
    expect(headline(after(split5, { ...downloading, phase: 'disconnected' }))).toBe('Not connected');
  });
});

describe('the phase', () => {
  it('counts bytes and blocks while weights arrive', () => {
    expect(phaseText(after(downloading))).toBe('Downloading…');
    expect(phaseText(after({ ...downloading, phase: 'paused' }))).toBe('Download paused');
    expect(phaseText(after(downloading, split5))).toBe('Downloading block 3 of 8');
    expect(phaseText(after({ ...downloading, blocksReady: 8 }, split5))).toBe('Downloading…');
    expect([amountText(after(downloading)), amountText(after({ ...downloading, totalBytes: 0 }))]).toEqual(['2.1 of 6.3 MB', '']);
  });

  it('is what an answer waits for in line', () => {
    const texts = [null, 1, 2, 3].map((place) => waitText({ ...after(), place }));
    expect(texts).toEqual(['', 'Waiting for the server; you are next.', 'Waiting for the server; 1 other before you.', 'Waiting for the server; 2 others before you.']);
  });

  it.each([['connecting', 'Connecting…'], ['compiling', 'Compiling…'], ['measuring', 'Measuring…'], ['ready', 'Ready'], ['disconnected', 'Your next question connects again.']] as const)('%s is %s', (phase, words) => {
    expect(phaseText(after({ ...downloading, phase }))).toBe(words);
  });
});

it('a lost connection says what becomes of the answer under way', () => {
  expect(phaseText(after(asked(1), { ...downloading, phase: 'disconnected' }))).toBe('Connecting again; the answer goes on then.');
  expect(phaseText(after(asked(1), { ...downloading, phase: 'connecting' }))).toBe('Connecting…');
  expect(phaseText(after(asked(1), text(1, 'Once'), { ...downloading, phase: 'connecting' }))).toBe('Connecting again; the answer goes on then.');
  expect(phaseText(after(asked(1), failure(null)))).toBe('Your next question connects again.');
});

describe('the picture in words', () => {
  it.each([
    [0, 'All 8 blocks, the embedding and the head run on the server.'],
    [1, 'Your browser: the embedding and block 1. Server: blocks 2 to 8 and the head.'],
    [7, 'Your browser: the embedding and blocks 1 to 7. Server: block 8 and the head.'],
    [8, 'Your browser: the embedding and blocks 1 to 8. Server: only the head.'],
  ])('split %s', (split, words) => {
    expect(pictureText(splitState(split))).toBe(words);
  });
});

describe('what is seen of the split', () => {
  it('is the effort in words', () => {
    expect([effortText(null, 8), effortText(0, 8), effortText(0.5, 8), effortText(0.25, null)]).toEqual(['all it can', 'none', 'up to 4 blocks', 'up to 25 %']);
  });

  it('is what a token took on each side, once there was one', () => {
    expect(tokenTimes(null, splitState(5))).toBeNull();
    expect(tokenTimes(STATS, splitState(5))).toEqual({ here: '20 ms a token', there: '50 ms with the network' });
    expect(tokenTimes({ ...STATS, browserTpotMs: null }, splitState(0))).toEqual({ here: '', there: '70 ms a token' });
  });

  it('is what went over the wire', () => {
    expect(trafficText({ ...STATS, sentBytes: 999, receivedBytes: 2.5e6 })).toBe('999 B up, 2.5 MB down');
  });

  it('is what the server was spared in all answers of the chat', () => {
    expect(serverWork(after().conversation)).toBeNull();
    expect(serverWork(after(asked(1), finished(1, 'a'), asked(2), finished(2, 'b')).conversation)).toEqual({ run: 600, saved: 400 });
  });
});
