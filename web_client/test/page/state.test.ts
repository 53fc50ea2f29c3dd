import { describe, expect, it } from 'vitest';
import { emptyConversation } from '../../src/page/conversation';
import { messagesFor, openAnswer, reduce, type PageEvent } from '../../src/page/state';
import { after, asked, failure, finished, lastAnswer, splitState, STATS, text } from './fixtures';

const split5 = { type: 'split', state: splitState(5) } as const;
const stopPressed = { type: 'stop_pressed' } as const;
const ready = { type: 'phase', phase: 'ready', doneBytes: 0, totalBytes: 0, blocksReady: 0 } as const;
const cleared = { type: 'conversation_opened', conversation: emptyConversation('new') } as const;

describe('the engine', () => {
  it('keeps phase, bytes and blocks of the last phase event', () => {
    const state = after({ type: 'phase', phase: 'downloading', doneBytes: 10, totalBytes: 30, blocksReady: 2 });
    expect(state).toMatchObject({ phase: 'downloading', doneBytes: 10, totalBytes: 30, blocksReady: 2 });
  });

  it('keeps the newest split', () => {
    expect(after(split5, { type: 'split', state: splitState(6) }).split?.split).toBe(6);
  });

  it('shows a notice once, with its newest sentence, until it is dismissed', () => {
    const notices = after(
      { type: 'notice', code: 'a', sentence: 'Old.' },
      { type: 'notice', code: 'b', sentence: 'Other.' },
      { type: 'notice', code: 'a', sentence: 'New.' },
    );
    expect(notices.notices.map((notice) => notice.sentence)).toEqual(['New.', 'Other.']);
    expect(reduce(notices, { type: 'notice_dismissed', code: 'a' }).notices.map((notice) => notice.code)).toEqual(['b']);
  });

  it('does not change the state for diagnostics', () => {
    const state = after(split5);
    const diagnostics = { adapter: null, backend: 'none', split: 0, blockRuns: [], kvLocations: [], crossOriginIsolated: false, log: [] } as const;
    expect(reduce(state, { type: 'diagnostics', diagnostics })).toBe(state);
  });

  it('fails the answer under way when it cannot go on', () => {
    const state = after(asked(1), text(1, 'Half'), failure(null));
    expect(state.engineFailure).toBe('It broke.');
    expect(lastAnswer(state)).toMatchObject({ status: 'failed', text: 'Half', sentence: 'It broke.' });
  });

  it('leaves a finished answer alone when it cannot go on', () => {
    expect(lastAnswer(after(asked(1), finished(1, 'Whole'), failure(null))).status).toBe('finished');
  });

  it('forgets the former split and failure when it is started again, not the conversation', () => {
    const state = after(split5, asked(1), finished(1, 'Hi'), failure(null), { type: 'engine_started' });
    expect(state).toMatchObject({ phase: 'connecting', split: null, engineFailure: null, blocksReady: 0 });
    expect(state.turns).toHaveLength(1);
  });
});

describe('an answer', () => {
  it('waits, streams and finishes with its figures and the split of that moment', () => {
    expect(lastAnswer(after(asked(1))).status).toBe('waiting');
    expect(lastAnswer(after(asked(1), text(1, 'To'), text(1, 'kyo')))).toMatchObject({ status: 'streaming', text: 'Tokyo' });
    const state = after(split5, asked(1), text(1, 'Tokyo'), finished(1, 'Tokyo.'), { type: 'split', state: splitState(7) });
    expect(lastAnswer(state)).toMatchObject({ status: 'finished', text: 'Tokyo.', stats: STATS, finishReason: 'stop' });
    expect(lastAnswer(state).split?.split).toBe(5);
    expect(state.lastStats).toBe(STATS);
    expect(openAnswer(state)).toBeNull();
  });

  it('takes the whole text of the end, which may be shorter than what streamed', () => {
    expect(lastAnswer(after(asked(1), text(1, 'Tokyo<en'), finished(1, 'Tokyo'))).text).toBe('Tokyo');
  });

  it('keeps the former figures when it has no tokens of its own', () => {
    const none = { ...STATS, tokens: 0, ttftMs: null, tpotMs: null };
    expect(after(asked(1), finished(1, 'a'), asked(2), finished(2, '', 'stop', none)).lastStats).toBe(STATS);
  });

  it('fails with its sentence and keeps what had arrived', () => {
    const state = after(asked(1), text(1, 'Half'), failure(1));
    expect(lastAnswer(state)).toMatchObject({ status: 'failed', text: 'Half', sentence: 'It broke.' });
    expect(state.engineFailure).toBeNull();
  });

  it('ends the attempt to connect that was made for it', () => {
    const connecting = { type: 'phase', phase: 'connecting', doneBytes: 0, totalBytes: 0, blocksReady: 0 } as const;
    expect(after(split5, connecting, asked(1), failure(1)).phase).toBe('disconnected');
    expect(after(split5, { ...connecting, phase: 'ready' }, asked(1), failure(1)).phase).toBe('ready');
    expect(after(asked(1), stopPressed, { type: 'engine_started' }, failure(1)).phase, 'of the engine before').toBe('connecting');
  });

  it('is replaced when asked again, in the same turn', () => {
    const state = after(asked(1), failure(1), { type: 'asked_again', ask: 2, id: 't1' });
    expect(state.turns).toHaveLength(1);
    expect(state.turns[0]).toMatchObject({ id: 't1', question: 'Hello?' });
    expect(lastAnswer(state)).toMatchObject({ ask: 2, status: 'waiting', text: '', sentence: null });
    expect(lastAnswer(reduce(state, finished(2, 'Now.')))).toMatchObject({ status: 'finished', text: 'Now.' });
  });

  it('cannot be asked again when there is none', () => {
    expect(after({ type: 'asked_again', ask: 1, id: 't1' }).turns).toEqual([]);
  });
});

describe('an answer that goes on', () => {
  const cut = after(asked(1), text(1, 'Once'), stopPressed, finished(1, 'Once', 'cancelled'));

  it('keeps its words and adds to them', () => {
    const state = [{ type: 'continued', ask: 2, id: 't1' } as const, text(2, ' upon'), finished(2, 'Once upon a time.')].reduce(reduce, cut);
    expect(state.turns).toHaveLength(1);
    expect(lastAnswer(state)).toMatchObject({ status: 'finished', text: 'Once upon a time.' });
    expect(lastAnswer(state).stats).toMatchObject({ tokens: 64, ttftMs: 240, serverMsRun: 600 });
  });

  it('can be another version of one that another tab began', () => {
    const state = reduce(cut, { type: 'asked', ask: 2, id: 't2', at: 2, parent: null, question: 'Hello?', begin: 'Once' });
    expect(lastAnswer(state)).toMatchObject({ status: 'streaming', text: 'Once' });
    expect(state.conversation.turns).toHaveLength(2);
  });
});

describe('stopping', () => {
  it('closes an answer before its first token, and ignores text that was under way', () => {
    const state = after(asked(1), stopPressed, text(1, 'late'));
    expect(lastAnswer(state)).toMatchObject({ status: 'stopped', text: '', finishReason: 'cancelled', stats: null });
    expect(openAnswer(state)).toBeNull();
  });

  it('takes the figures when the engine confirms, not text the person never saw', () => {
    const state = after(split5, asked(1), text(1, 'Once'), stopPressed, finished(1, 'Once upon', 'cancelled'));
    expect(lastAnswer(state)).toMatchObject({ status: 'stopped', text: 'Once', stats: STATS });
  });

  it('stays a stop when the answer ended by itself in the same moment, or failed', () => {
    expect(lastAnswer(after(asked(1), stopPressed, finished(1, 'Hi', 'stop')))).toMatchObject({ status: 'stopped', finishReason: 'cancelled' });
    expect(lastAnswer(after(asked(1), stopPressed, failure(1))).status).toBe('stopped');
  });

  it('lets the confirmation arrive after the next question', () => {
    const state = after(asked(1), stopPressed, asked(2), finished(1, '', 'cancelled'));
    expect(state.turns[0]?.answer.stats).toBe(STATS);
    expect(lastAnswer(state)).toMatchObject({ ask: 2, status: 'waiting' });
  });

  it('does nothing when nothing is under way', () => {
    const state = after(asked(1), finished(1, 'Hi'));
    expect(reduce(state, stopPressed)).toBe(state);
    expect(after(stopPressed)).toEqual(after());
  });

  it('counts a cancelled end as stopped, whoever cancelled', () => {
    expect(lastAnswer(after(asked(1), finished(1, 'Hi', 'cancelled'))).status).toBe('stopped');
  });
});

describe('events of an answer that is gone', () => {
  const fresh = after(ready, asked(1), text(1, 'Old'), cleared, asked(2, 'New?', null));

  it.each([text(1, ' more'), finished(1, 'Old more'), failure(1)])('$type changes nothing', (event) => {
    expect(reduce(fresh, event)).toBe(fresh);
  });

  it('do not reach the answer that replaced it', () => {
    const state = after(asked(1), failure(1), { type: 'asked_again', ask: 2, id: 't1' });
    expect(reduce(state, text(1, 'ghost'))).toBe(state);
  });

  it('do not reopen a finished answer', () => {
    const state = after(ready, asked(1), finished(1, 'Done'));
    expect(reduce(state, text(1, 'ghost'))).toBe(state);
    expect(reduce(state, finished(1, 'again'))).toMatchObject({ turns: state.turns });
    expect(reduce(state, failure(1))).toBe(state);
  });

  it('never meet a reused number: a new chat counts on', () => {
    expect(fresh.lastAsk).toBe(2);
    expect(after(asked(7), cleared).lastAsk).toBe(7);
  });
});

describe('what the model sees', () => {
  it('is every answered turn and the last question', () => {
    expect(messagesFor(after(asked(1, 'A?'), finished(1, 'A.'), asked(2, 'B?')))).toEqual([
      { role: 'user', content: 'A?' },
      { role: 'assistant', content: 'A.' },
      { role: 'user', content: 'B?' },
    ]);
  });

  it('leaves out turns that failed or were stopped before a word, keeps what was said before a stop', () => {
    const state = after(
      asked(1, 'fails'), text(1, 'x'), failure(1),
      asked(2, 'silent'), stopPressed,
      asked(3, 'cut'), text(3, 'Once'), stopPressed,
      asked(4, 'last'),
    );
    expect(messagesFor(state).map((message) => message.content)).toEqual(['cut', 'Once', 'last']);
  });

  it('begins with the instructions, if there are any', () => {
    const settings = { ...after().settings, instructions: '  Be brief. ' };
    expect(messagesFor(after({ type: 'settings_changed', settings }, asked(1)))[0]).toEqual({ role: 'system', content: 'Be brief.' });
  });
});

describe('the list of chats', () => {
  const listed = (...titles: string[]): PageEvent => ({ type: 'chats_listed', chats: titles.map((title) => ({ id: title, title })) });

  it('that is read anew and holds the same is no news: its rows are not replaced under a person who presses one', () => {
    const state = after(listed('a', 'b'));
    expect(reduce(state, listed('a', 'b'))).toBe(state);
    for (const news of [listed('b', 'a'), listed('a'), listed('a', 'b', 'c')]) expect(reduce(state, news).chats).not.toBe(state.chats);
  });
});
