import { describe, expect, it } from 'vitest';
import { asStored, emptyAnswer, emptyConversation, leafBelow, merge, pathOf, titleOf, versionsAfter, withTurn, type Conversation, type Turn } from '../../src/page/conversation';

let clock = 0;
function turn(id: string, parent: string | null, ask = 0): Turn {
  clock += 1;
  return { id, parent, createdAt: clock, question: `${id}?`, answer: { ...emptyAnswer(ask), status: 'finished', text: `${id}.` } };
}

function tree(...turns: readonly Turn[]): Conversation {
  return turns.reduce(withTurn, emptyConversation('c'));
}

const path = (conversation: Conversation): string => pathOf(conversation).map(({ id }) => id).join();

describe('a conversation', () => {
  it('shows the path to the newest turn', () => {
    expect(path(tree(turn('a', null), turn('b', 'a'), turn('c', 'b')))).toBe('a,b,c');
    expect(path(emptyConversation('c'))).toBe('');
  });

  it('keeps what an edit replaces, as another version', () => {
    const a = turn('a', null);
    const edited = tree(a, turn('b', 'a'), turn('c', 'b'), turn('x', null));
    expect(path(edited)).toBe('x');
    expect(versionsAfter(edited).get(a.parent)?.map(({ id }) => id)).toEqual(['a', 'x']);
    expect(path({ ...edited, leaf: leafBelow(edited, 'a') })).toBe('a,b,c');
  });

  it('comes to an end whatever its parents say', () => {
    const circle = { ...tree(turn('a', 'b'), turn('b', 'a')), leaf: 'a' };
    expect(path(circle)).toBe('b,a');
    expect(leafBelow(circle, 'a')).toBe('b');
    expect(path({ ...circle, leaf: 'gone' })).toBe('');
  });
});

describe('two tabs', () => {
  it('that ask after the same turn keep both questions', () => {
    const here = tree(turn('a', null), turn('mine', 'a', 1));
    const there = turn('theirs', 'a');
    const both = merge(here, [...here.turns.slice(0, 1), there], null);
    expect(both.turns.map(({ id }) => id)).toEqual(['a', 'mine', 'theirs']);
    expect(path(both)).toBe('a,mine');
  });

  it('show what the other adds at the end', () => {
    expect(path(merge(tree(turn('a', null)), [turn('b', 'a'), turn('c', 'b')], null))).toBe('a,b,c');
  });

  it('leave the end where an answer is under way', () => {
    const open = { ...turn('mine', null, 1), answer: emptyAnswer(1) };
    expect(path(merge(tree(open), [turn('theirs', 'mine')], null))).toBe('mine');
  });

  it('write each only the answers that they asked for', () => {
    const here = tree(turn('mine', null, 1));
    const stale = { ...turn('mine', null), answer: { ...emptyAnswer(0), text: 'stale' } };
    expect(merge(here, [stale], 'Named')).toMatchObject({ title: 'Named', turns: here.turns });
  });
});

it('an answer that was under way when it was written is so in another tab, or was cut short', () => {
  const open = { ...turn('a', null, 3), answer: { ...emptyAnswer(3), status: 'streaming' as const, text: 'Half' } };
  expect(asStored(open, new Set(['b'])).answer).toMatchObject({ ask: 0, status: 'stopped', text: 'Half' });
  expect(asStored(open, new Set(['a'])).answer).toMatchObject({ ask: 0, status: 'elsewhere', text: 'Half' });
  expect(asStored(turn('b', null), new Set(['b'])).answer.status).toBe('finished');
});

it('a title is the name that was given, or the first question, on one line', () => {
  expect(titleOf('Mine', 'What?')).toBe('Mine');
  expect(titleOf(null, ' What\n is  this? ')).toBe('What is this?');
  expect(Array.from(titleOf(null, '😀'.repeat(100)))).toHaveLength(60);
});
