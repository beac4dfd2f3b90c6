import { Observable, of, NEVER as SILENCE } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { defaultHostCosts, type Sim } from '../../kernel/index.ts';
import {
  IntervalNotifiers,
  type IntervalOps,
  type IntervalSubscription,
} from '../../kernel/mm/notify/interval-notifier.ts';
import { CAUSE_UNMAP, type Invalidation } from '../../kernel/mm/notify/invalidation.ts';
import { NS, US } from '../../transport/index.ts';
import { makeBench } from './bench.ts';

function* announce(notifiers: IntervalNotifiers, start: number, end: number): Sim<Invalidation> {
  const range: Invalidation = { start, end, cause: CAUSE_UNMAP, atomic: false, refused: false };
  yield* notifiers.begin(range);
  return range;
}

/** A driver that notes the sequence at once and lets go when `release` is called. */
function driver(): IntervalOps & { subscription?: IntervalSubscription; release(): void } {
  let finish = (): void => {};
  return {
    release: () => finish(),
    invalidate(_range, sequence) {
      this.subscription?.setSequence(sequence);
      return new Observable((subscriber) => {
        finish = () => subscriber.complete();
      });
    },
  };
}

describe('interval notifiers', () => {
  it('keep the caller of begin until the device lets go, and readers until end', () => {
    const costs = { ...defaultHostCosts, contextSwitchPs: 0 };
    const { host, adapter } = makeBench({ costs });
    const notifiers = new IntervalNotifiers(host.node);
    const ops = driver();
    const subscription = notifiers.subscribe(0, 4096, ops);
    ops.subscription = subscription;
    const story: string[] = [];
    host.spawn(
      'changer',
      (function* (): Sim<void> {
        const range = yield* announce(notifiers, 0, 8192);
        story.push(`begun ${host.node.now}`);
        yield* host.sleep(1 * US);
        story.push('changed');
        notifiers.end(range);
      })(),
    );
    host.spawn(
      'reader',
      (function* (): Sim<void> {
        yield* host.sleep(100 * NS);
        const sequence = yield* notifiers.readBegin(subscription);
        story.push('read');
        expect(notifiers.readRetry(subscription, sequence)).toBe(false);
      })(),
    );
    host.spawn(
      'device',
      (function* (): Sim<void> {
        yield* host.sleep(5 * US);
        ops.release();
      })(),
    );
    adapter.run(host);
    expect(story).toEqual(['begun 5000000', 'changed', 'read']);
  });

  it('make a lookup that was overtaken try again', () => {
    const { host, run } = makeBench();
    const notifiers = new IntervalNotifiers(host.node);
    const hit: IntervalOps = {
      invalidate(_range, sequence) {
        subscription.setSequence(sequence);
        return of();
      },
    };
    const subscription = notifiers.subscribe(0, 4096, hit);
    const missed = notifiers.subscribe(8192, 12288, { invalidate: () => SILENCE });
    const done = run(
      (function* (): Sim<void> {
        const sequence = yield* notifiers.readBegin(subscription);
        const other = yield* notifiers.readBegin(missed);
        notifiers.end(yield* announce(notifiers, 0, 4096));
        expect(notifiers.readRetry(subscription, sequence)).toBe(true);
        expect(notifiers.readRetry(missed, other)).toBe(false);
        const again = yield* notifiers.readBegin(subscription);
        expect(notifiers.readRetry(subscription, again)).toBe(false);
      })(),
    );
    expect(done).toBe(true);
  });

  it('do not disturb anybody outside the range', () => {
    const { host, run } = makeBench();
    const notifiers = new IntervalNotifiers(host.node);
    notifiers.subscribe(0, 4096, { invalidate: () => SILENCE });
    const done = run(
      (function* (): Sim<void> {
        notifiers.end(yield* announce(notifiers, 4096, 8192));
      })(),
    );
    expect(done).toBe(true);
    expect(notifiers.invalidations).toBe(0);
    expect(host.node.now).toBe(0);
  });

  it('let a subscription made during an invalidation wait for its end, and one ended then too', () => {
    const { host, adapter } = makeBench();
    const notifiers = new IntervalNotifiers(host.node);
    const ops = driver();
    const first = notifiers.subscribe(0, 4096, ops);
    ops.subscription = first;
    const times: Record<string, number> = {};
    host.spawn(
      'changer',
      (function* (): Sim<void> {
        const range = yield* announce(notifiers, 0, 4096);
        notifiers.end(range);
      })(),
    );
    host.spawn(
      'newcomer',
      (function* (): Sim<void> {
        yield* host.sleep(1 * US);
        const late = notifiers.subscribe(0, 4096, { invalidate: () => of() });
        yield* notifiers.readBegin(late);
        times.newcomer = host.node.now;
        yield* notifiers.unsubscribe(late);
      })(),
    );
    host.spawn(
      'leaver',
      (function* (): Sim<void> {
        yield* host.sleep(2 * US);
        yield* notifiers.unsubscribe(first);
        times.leaver = host.node.now;
      })(),
    );
    host.spawn(
      'device',
      (function* (): Sim<void> {
        yield* host.sleep(9 * US);
        ops.release();
      })(),
    );
    adapter.run(host);
    expect(times.newcomer).toBeGreaterThanOrEqual(9 * US);
    expect(times.leaver).toBeGreaterThanOrEqual(9 * US);
    const before = notifiers.invalidations;
    host.spawn(
      'after',
      (function* (): Sim<void> {
        notifiers.end(yield* announce(notifiers, 0, 4096));
      })(),
    );
    adapter.run(host);
    expect(notifiers.invalidations).toBe(before);
  });

  it('keep readers until the last of several invalidations has ended', () => {
    const { host, run } = makeBench();
    const notifiers = new IntervalNotifiers(host.node);
    const hit: IntervalOps = {
      invalidate(_range, sequence) {
        subscription.setSequence(sequence);
        return of();
      },
    };
    const subscription = notifiers.subscribe(0, 4096, hit);
    const story: string[] = [];
    const done = run(
      (function* (): Sim<void> {
        const outer = yield* announce(notifiers, 0, 4096);
        const inner = yield* announce(notifiers, 0, 8192);
        const elsewhere = yield* announce(notifiers, 65536, 69632);
        const reader = host.spawn(
          'reader',
          (function* (): Sim<void> {
            yield* notifiers.readBegin(subscription);
            story.push('read');
          })(),
        );
        for (const [name, range] of Object.entries({ outer, inner, elsewhere })) {
          yield* host.sleep(1 * US);
          story.push(`end of ${name}`);
          notifiers.end(range);
        }
        yield reader.done;
      })(),
    );
    expect(done).toBe(true);
    // The sequence is one for the process: what goes on elsewhere holds readers up too.
    expect(story).toEqual(['end of outer', 'end of inner', 'end of elsewhere', 'read']);
  });

  it('forget a subscription that ends before the invalidation in which it was made', () => {
    const { host, run } = makeBench();
    const notifiers = new IntervalNotifiers(host.node);
    const ops: IntervalOps = {
      invalidate(_range, sequence) {
        first.setSequence(sequence);
        return of();
      },
    };
    const first = notifiers.subscribe(0, 4096, ops);
    const done = run(
      (function* (): Sim<void> {
        const range = yield* announce(notifiers, 0, 4096);
        const late = notifiers.subscribe(0, 4096, { invalidate: () => SILENCE });
        const startPs = host.node.now;
        yield* notifiers.unsubscribe(late);
        expect(host.node.now).toBe(startPs);
        notifiers.end(range);
        // Would wait for ever if `late` were called.
        notifiers.end(yield* announce(notifiers, 0, 4096));
        yield* notifiers.unsubscribe(first);
        expect(notifiers.hits(0, 4096)).toBe(false);
      })(),
    );
    expect(done).toBe(true);
  });

  it('fail the run when a callback does', () => {
    const { host, run } = makeBench();
    const notifiers = new IntervalNotifiers(host.node);
    const broken = new Observable((subscriber) => subscriber.error(new Error('flush failed')));
    notifiers.subscribe(0, 4096, { invalidate: () => broken });
    expect(() =>
      run(
        (function* (): Sim<void> {
          yield* announce(notifiers, 0, 4096);
        })(),
      ),
    ).toThrow('flush failed');
  });
});
