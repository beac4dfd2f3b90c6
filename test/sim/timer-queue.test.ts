import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { NEVER, TimerQueue } from '../../transport/index.ts';

describe('TimerQueue', () => {
  it('hands timers back by time, and by order of adding at equal times', () => {
    const step = fc.option(fc.nat(10), { nil: undefined, freq: 3 });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
        const queue = new TimerQueue();
        const expected: { at: number; payload: number }[] = [];
        steps.forEach((at, payload) => {
          if (at !== undefined) {
            queue.add(at, payload);
            // Behind all that are due no later.
            const place = expected.findIndex((timer) => timer.at > at);
            expected.splice(place < 0 ? expected.length : place, 0, { at, payload });
          } else if (expected.length > 0) {
            expect(queue.take()).toBe(expected.shift()?.payload);
          }
          expect(queue.nextTime()).toBe(expected[0]?.at ?? NEVER);
        });
      }),
      { seed: 3, numRuns: 200 },
    );
  });

  it('forgets timers that never fire', () => {
    const queue = new TimerQueue();
    queue.add(NEVER, 1);
    expect(queue.nextTime()).toBe(NEVER);
  });
});
