/** Memory that goes offline and comes back. */
import { describe, expect, it } from 'vitest';
import { PROT_READ, PROT_WRITE, type Sim } from '../../../kernel/index.ts';
import type {
  MemoryAction,
  MemoryNotifier,
  MemoryOutcome,
} from '../../../kernel/memory-notifier.ts';
import { ACCESS_LOCAL_WRITE, ACCESS_ON_DEMAND, MS } from '../../../transport/index.ts';
import { BASE, makeBench, PAGE } from '../bench.ts';

const RW = PROT_READ | PROT_WRITE;
/** Two nodes of 2048 frames, in sections of 512. */
const HOST = { memoryBytes: 4096 * PAGE, memoryNodes: 2, memorySectionBytes: 512 * PAGE };

class Listener implements MemoryNotifier {
  readonly events: string[] = [];
  constructor(
    readonly name: string,
    private readonly reason?: string,
  ) {}
  refuse(action: MemoryAction, first: number, count: number): string | undefined {
    this.events.push(`${action} ${first} + ${count}`);
    return this.reason;
  }
  settled(outcome: MemoryOutcome, first: number, count: number): void {
    this.events.push(`${outcome} ${first} + ${count}`);
  }
}

function caught(error: unknown): { errno: string; message: string } {
  return error as { errno: string; message: string };
}

describe('memory that goes offline', () => {
  it('is emptied, used by nobody, and comes back', () => {
    const { host, run } = makeBench(HOST);
    const { mm, ram, verbs } = host;
    const listener = new Listener('driver');
    ram.hotplug.notifiers.register(listener);
    const range = { first: 2048, end: 3072 };
    const used = (): number => {
      let frames = 0;
      for (let frame = range.first; frame < range.end; frame++) {
        if (ram.frames.references[frame] > 0) frames++;
      }
      return frames;
    };
    const done = run(
      (function* (): Sim<void> {
        mm.state.homeNode = 1;
        yield* mm.mmap(BASE, 1500 * PAGE, RW);
        yield* mm.fill(BASE, 1500 * PAGE, 7);
        const before = mm.hash(BASE, 1500 * PAGE);
        yield* verbs.regMr(1, BASE, 1500 * PAGE, ACCESS_LOCAL_WRITE | ACCESS_ON_DEMAND);
        expect(used()).toBe(1024);
        const free = ram.frames.freeCount;
        yield* ram.hotplug.offline(range);
        expect(used()).toBe(0);
        expect(mm.hash(BASE, 1500 * PAGE)).toBe(before);
        expect(ram.frames.freeCount).toBe(free - 1024);
        yield* mm.mmap(BASE + 2000 * PAGE, 1000 * PAGE, RW);
        yield* mm.touch(BASE + 2000 * PAGE, 1000, true);
        expect(used()).toBe(0);
        host.checkLeaks();
        const less = ram.frames.freeCount;
        yield* ram.hotplug.online(range);
        expect(ram.frames.freeCount).toBe(less + 1024);
        expect(ram.frames.freeLists.blocksOf(1, 9)).toBeGreaterThan(1);
      })(),
    );
    expect(done).toBe(true);
    const events = ['going offline', 'offline', 'going online', 'online'];
    expect(listener.events).toEqual(events.map((event) => `${event} 2048 + 1024`));
    host.checkLeaks();
  });

  it('stays when a page of it is pinned: EBUSY after the time-out, with page and holder', () => {
    const { host, run } = makeBench(HOST);
    const { mm, ram, verbs } = host;
    const listener = new Listener('driver');
    ram.hotplug.notifiers.register(listener);
    let error: unknown;
    const done = run(
      (function* (): Sim<void> {
        mm.state.homeNode = 1;
        yield* mm.mmap(BASE, 100 * PAGE, RW);
        yield* mm.fill(BASE, 100 * PAGE, 7);
        const before = mm.hash(BASE, 100 * PAGE);
        const mr = yield* verbs.regMr(1, BASE + 5 * PAGE, PAGE, ACCESS_LOCAL_WRITE);
        const range = { first: 2048, end: 2560 };
        const free = ram.frames.freeCount;
        const start = host.node.now;
        try {
          yield* ram.hotplug.offline(range, 200 * MS);
        } catch (thrown) {
          error = thrown;
        }
        expect(host.node.now - start).toBeGreaterThanOrEqual(200 * MS);
        // Everything else has moved out, and the memory is in use again.
        expect(ram.frames.freeCount).toBe(free);
        expect(mm.hash(BASE, 100 * PAGE)).toBe(before);
        host.checkLeaks();
        yield* verbs.deregMr(mr);
        yield* ram.hotplug.offline(range, 200 * MS);
      })(),
    );
    expect(done).toBe(true);
    expect(caught(error)).toMatchObject({ errno: 'EBUSY', call: 'offline_pages' });
    expect(caught(error).message).toMatch(
      /1 pages could not be moved: frame \d+ \(pinned by memory region 1 of a\) \(EBUSY\)/,
    );
    const events = ['going offline', 'offline cancelled', 'going offline', 'offline'];
    expect(listener.events).toEqual(events.map((event) => `${event} 2048 + 512`));
    host.checkLeaks();
  });

  it('stays when a driver refuses, and those who had agreed are told', () => {
    const { host, run } = makeBench(HOST);
    const { ram } = host;
    const first = new Listener('first');
    const refusing = new Listener('ehca', 'its adapter knows all of memory');
    const last = new Listener('last');
    for (const listener of [first, refusing, last]) ram.hotplug.notifiers.register(listener);
    const offline = (): unknown => run(ram.hotplug.offline({ first: 512, end: 1024 }));
    expect(offline).toThrow(/ehca refuses: its adapter knows all of memory \(EBUSY\)/);
    expect(first.events).toEqual(['going offline 512 + 512', 'offline cancelled 512 + 512']);
    expect(refusing.events).toHaveLength(1);
    expect(last.events).toHaveLength(0);
    host.checkLeaks();
  });

  it.each([
    ['half a section', { first: 0, end: 300 }],
    ['no section at all', { first: 512, end: 512 }],
    ['sections of two nodes', { first: 1536, end: 2560 }],
    ['what is not there', { first: 4096, end: 4608 }],
    ['what is before the first frame', { first: -512, end: 0 }],
  ])('refuses %s', (_, range) => {
    const { host, run } = makeBench(HOST);
    const offline = (): unknown => run(host.ram.hotplug.offline(range));
    expect(offline).toThrow(expect.objectContaining({ code: 'E_OPERATION', errno: 'EINVAL' }));
  });

  it('goes offline once', () => {
    const { host, run } = makeBench(HOST);
    const twice = (): unknown =>
      run(
        (function* (): Sim<void> {
          yield* host.ram.hotplug.offline({ first: 512, end: 1024 });
          yield* host.ram.hotplug.offline({ first: 512, end: 1536 });
        })(),
      );
    expect(twice).toThrow(/frame 512 is offline already \(EINVAL\)/);
    const online = (): unknown => run(host.ram.hotplug.online({ first: 1024, end: 1536 }));
    expect(online).toThrow(/frame 1024 is online already \(EINVAL\)/);
  });
});
