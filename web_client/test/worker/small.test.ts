import { describe, expect, test } from 'vitest';
import { Mailbox } from '../../src/session/mailbox';
import { median, ObservedDecode } from '../../src/worker/measure';
import { blocksThatFit } from '../../src/worker/memory';
import { Serial } from '../../src/worker/serial';

test('as many blocks fit as their sizes add up to', () => {
  expect(blocksThatFit([4, 4, 4], 8)).toBe(2);
  expect(blocksThatFit([4, 4, 4], 3)).toBe(0);
  expect(blocksThatFit([4, 4, 4], 12)).toBe(3);
  expect(blocksThatFit([4, 4, 4], null)).toBe(3);
});

test('the median is the middle one, or between the middle two', () => {
  expect(median([9, 1, 2])).toBe(2);
  expect(median([4, 1, 2, 9])).toBe(3);
});

describe('mailbox', () => {
  test('gives in the order of arrival, whether somebody waits or not', async () => {
    const mailbox = new Mailbox<number>();
    mailbox.put(1);
    expect(mailbox.isEmpty).toBe(false);
    await expect(mailbox.next()).resolves.toBe(1);
    const waiting = mailbox.next();
    mailbox.put(2);
    mailbox.put(3);
    await expect(waiting).resolves.toBe(2);
    await expect(mailbox.next()).resolves.toBe(3);
  });

  test('gives what came before the end, then the reason of the end', async () => {
    const mailbox = new Mailbox<number>();
    mailbox.put(1);
    mailbox.fail(new Error('over'));
    await expect(mailbox.next()).resolves.toBe(1);
    await expect(mailbox.next()).rejects.toThrow('over');
  });

  test('the end reaches who waits', async () => {
    const mailbox = new Mailbox<number>();
    const waiting = mailbox.next();
    mailbox.fail(new Error('over'));
    await expect(waiting).rejects.toThrow('over');
  });
});

test('tasks run one after the other, also after one that failed', async () => {
  const serial = new Serial();
  const order: string[] = [];
  const task = (name: string, fails = false) => async (): Promise<void> => {
    order.push(`${name} begins`);
    await Promise.resolve();
    order.push(`${name} ends`);
    if (fails) throw new Error(name);
  };
  const first = serial.run(task('a', true));
  const second = serial.run(task('b'));
  await expect(first).rejects.toThrow('a');
  await second;
  expect(order).toEqual(['a begins', 'a ends', 'b begins', 'b ends']);
});

describe('what decoding really takes', () => {
  const after = (rehearsed: number, steps: number, ms: number): ObservedDecode => {
    const observed = new ObservedDecode(rehearsed);
    for (let step = 0; step < steps; step += 1) observed.add(ms, 4);
    return observed;
  };

  test('is news when it is far from what the planner was told, and then no more', () => {
    const observed = after(2, 8, 40);
    expect(observed.takeNews()).toBe(10);
    expect(observed.takeNews()).toBeNull();
    expect(after(2, 8, 4).takeNews()).toBe(1);
  });

  test('is none while the difference is small or the steps are few', () => {
    expect(after(2, 8, 11).takeNews()).toBeNull();
    expect(after(2, 7, 40).takeNews()).toBeNull();
  });
});
