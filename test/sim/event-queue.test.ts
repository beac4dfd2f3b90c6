import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EventQueue, NEVER } from '../../transport/index.ts';

const SLOTS = 40;
const arming = fc.record({
  slot: fc.nat(SLOTS - 1),
  at: fc.oneof(fc.nat(20), fc.constant(NEVER)),
});

/** The first slot in (time, slot), the plain way. */
function firstOf(times: readonly number[]): number {
  return times.reduce((best, at, slot) => (at < times[best] ? slot : best), 0);
}

describe('EventQueue', () => {
  it('has its first event where a plain search finds it, after any arming', () => {
    fc.assert(
      fc.property(fc.array(arming, { maxLength: 300 }), (steps) => {
        const queue = new EventQueue();
        for (let slot = 0; slot < SLOTS; slot++) expect(queue.addSlot()).toBe(slot);
        const times: number[] = new Array(SLOTS).fill(NEVER);
        for (const { slot, at } of steps) {
          queue.arm(slot, at);
          times[slot] = at;
          const first = firstOf(times);
          expect(queue.nextTime()).toBe(times[first]);
          if (times[first] !== NEVER) expect(queue.nextSlot()).toBe(first);
          const others = times.filter((_, i) => i !== slot);
          expect(queue.nextTimeExcept(slot)).toBe(Math.min(...others));
          expect(queue.timeOf(slot)).toBe(at);
        }
      }),
      { seed: 1, numRuns: 100 },
    );
  });

  it('gives the same order whatever the order of arming', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(5), { minLength: SLOTS, maxLength: SLOTS }), (times) => {
        const drained = (order: number[]): number[] => {
          const queue = new EventQueue();
          for (let slot = 0; slot < SLOTS; slot++) queue.addSlot();
          for (const slot of order) queue.arm(slot, times[slot]);
          return order.map(() => {
            const slot = queue.nextSlot();
            queue.arm(slot, NEVER);
            return slot;
          });
        };
        const order = times.map((_, slot) => slot);
        const upwards = drained(order);
        expect(drained(order.reverse())).toEqual(upwards);
      }),
      { seed: 2, numRuns: 50 },
    );
  });
});
