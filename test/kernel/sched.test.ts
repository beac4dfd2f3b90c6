import { concatMap, delay, interval, map, of, take } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { Completion, Mutex, type Sim, wait } from '../../kernel/index.ts';
import { subscribeOrFail } from '../../kernel/rx/subscribe.ts';
import { VirtualScheduler } from '../../kernel/rx/virtual-scheduler.ts';
import { RwLock } from '../../kernel/sched/rw-lock.ts';
import { Timers } from '../../kernel/sched/timers.ts';
import { NS, US } from '../../transport/index.ts';
import { makeBench } from './bench.ts';

describe('simulated threads', () => {
  it('share CPUs first come, first served, and pay for a switch', () => {
    const { host, adapter } = makeBench({ cpus: 1 });
    const ends: string[] = [];
    for (const name of ['a', 'b', 'c']) {
      host.spawn(
        name,
        (function* (): Sim<void> {
          yield 10 * US;
          ends.push(`${name} ${host.node.now / US}`);
        })(),
      );
    }
    adapter.run(host);
    // kswapd ran first, so even the first of them is a switch.
    expect(ends).toEqual(['a 11', 'b 22', 'c 33']);
  });

  it('free their CPU while they sleep', () => {
    const { host, adapter } = makeBench({ cpus: 1 });
    const answer = new Completion<number>();
    let got = 0;
    host.spawn(
      'sleeper',
      (function* (): Sim<void> {
        got = yield* wait(answer);
      })(),
    );
    host.spawn(
      'waker',
      (function* (): Sim<void> {
        yield 5 * US;
        answer.resolve(42);
      })(),
    );
    adapter.run(host);
    expect(got).toBe(42);
  });

  it('may spin but not sleep in an atomic section', () => {
    const spin = makeBench({ cpus: 1 });
    const { scheduler } = spin.host;
    const order: string[] = [];
    const flushed = new Completion<void>();
    spin.host.spawn(
      'spinner',
      (function* (): Sim<void> {
        scheduler.enterAtomic();
        yield* scheduler.spin(flushed);
        scheduler.leaveAtomic();
        order.push('spinner');
      })(),
    );
    spin.host.spawn(
      'bystander',
      (function* (): Sim<void> {
        order.push('bystander');
        yield 0;
      })(),
    );
    const timers = new Timers(spin.host.node);
    timers.after(50 * US, () => flushed.resolve());
    spin.adapter.run(spin.host);
    expect(order).toEqual(['spinner', 'bystander']);

    const sleep = makeBench();
    expect(() =>
      sleep.run(
        (function* (): Sim<void> {
          sleep.host.scheduler.enterAtomic();
          yield* sleep.host.sleep(1);
        })(),
      ),
    ).toThrow(/sleeps while atomic/);
  });

  it('say what they wait for when the world comes to rest', () => {
    const { host, run } = makeBench();
    const done = run(
      (function* (): Sim<void> {
        yield new Completion('Godot');
      })(),
    );
    expect(done).toBe(false);
    expect(host.scheduler.unfinished()).toContain('test: Godot');
  });
});

describe('locks', () => {
  it('hand a mutex over in the order of asking', () => {
    const { host, adapter } = makeBench({ cpus: 2 });
    const mutex = new Mutex('m');
    const order: number[] = [];
    for (let i = 0; i < 4; i++) {
      host.spawn(
        `t${i}`,
        (function* (): Sim<void> {
          yield* host.sleep(i + 1);
          yield* mutex.lock();
          yield 10 * US;
          order.push(i);
          mutex.unlock();
        })(),
      );
    }
    adapter.run(host);
    expect(order).toEqual([0, 1, 2, 3]);
    expect(mutex.locked).toBe(false);
  });

  it('let readers in together, but not past a waiting writer', () => {
    const { host, adapter } = makeBench({ cpus: 4 });
    const lock = new RwLock('m');
    const story: string[] = [];
    const reader = function* (name: string, at: number): Sim<void> {
      yield* host.sleep(at);
      yield* lock.lockRead();
      story.push(`+${name}`);
      yield* host.sleep(10 * US);
      story.push(`-${name}`);
      lock.unlockRead();
    };
    host.spawn('r1', reader('r1', 1 * US));
    host.spawn('r2', reader('r2', 2 * US));
    host.spawn(
      'w',
      (function* (): Sim<void> {
        yield* host.sleep(3 * US);
        yield* lock.lockWrite();
        story.push('+w');
        yield* host.sleep(10 * US);
        story.push('-w');
        lock.unlockWrite();
      })(),
    );
    host.spawn('r3', reader('r3', 4 * US));
    adapter.run(host);
    expect(story).toEqual(['+r1', '+r2', '-r1', '-r2', '+w', '-w', '+r3', '-r3']);
    expect(lock.idle).toBe(true);
  });
});

describe('RxJS on virtual time', () => {
  it('delays and ticks by the simulated clock', () => {
    const { host, adapter } = makeBench();
    const scheduler = new VirtualScheduler(new Timers(host.node));
    const seen: string[] = [];
    const stream = of('x', 'y').pipe(
      concatMap((value) => of(value).pipe(delay(5 * NS, scheduler))),
      map((value) => `${value} ${scheduler.now() / NS}`),
    );
    subscribeOrFail(host.node, stream, (value) => seen.push(value));
    subscribeOrFail(host.node, interval(4 * NS, scheduler).pipe(take(3)), (n) =>
      seen.push(`tick ${n} ${scheduler.now() / NS}`),
    );
    adapter.run(host);
    expect(seen).toEqual(['tick 0 4', 'x 5', 'tick 1 8', 'y 10', 'tick 2 12']);
  });

  it('ends the run when a subscriber throws', () => {
    const { host, adapter } = makeBench();
    const scheduler = new VirtualScheduler(new Timers(host.node));
    subscribeOrFail(host.node, of(1).pipe(delay(5, scheduler)), () => {
      throw new Error('subscriber');
    });
    expect(() => adapter.run(host)).toThrow('subscriber');
  });
});
