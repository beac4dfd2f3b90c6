import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  O_NONBLOCK,
  O_RDWR,
  Ummunotify,
  type UmmunotifyFile,
} from '../../../kernel/clients/ummunotify.ts';
import {
  UMMUNOTIFY_HINT,
  UMMUNOTIFY_INVAL,
  UMMUNOTIFY_LAST,
  type UmmunotifyEvent,
} from '../../../kernel/clients/ummunotify-events.ts';
import { SystemCallError } from '../../../kernel/errno.ts';
import { type Host, PROT_READ, PROT_WRITE, type Sim } from '../../../kernel/index.ts';
import { BASE, makeBench, PAGE } from '../bench.ts';

const RW = PROT_READ | PROT_WRITE;

/** Runs a program on a host with ummunotify opened for its process. */
function withFile(
  program: (host: Host, file: UmmunotifyFile) => Sim<void>,
  flags = O_NONBLOCK,
  limit?: number,
): void {
  const { host, run } = makeBench();
  const done = run(
    (function* (): Sim<void> {
      const file = yield* new Ummunotify(limit).open(host.mm, flags);
      yield* program(host, file);
    })(),
  );
  expect(done, host.scheduler.unfinished().join()).toBe(true);
  host.checkLeaks();
}

/** The errno of a system call that must be refused. */
function* errnoOf(call: Sim<unknown>): Sim<string> {
  try {
    yield* call;
  } catch (error) {
    if (error instanceof SystemCallError) return error.errno;
    throw error;
  }
  return 'none';
}

describe('ummunotify', () => {
  it('counts from 0 to 1 when the middle page is unmapped, and says which (its own self test)', () => {
    withFile(function* ({ mm }, file) {
      yield* mm.mmap(BASE, 3 * PAGE, RW);
      yield* mm.touch(BASE, 3, true);
      expect(yield* file.exchangeFeatures(0xffff)).toBe(0);
      yield* file.registerRegion(BASE, BASE + 3 * PAGE, 42);
      yield* file.mapCounter(PAGE);
      expect(file.generation).toBe(0);
      expect(yield* errnoOf(file.read(4096))).toBe('EAGAIN');
      yield* mm.munmap(BASE + PAGE, PAGE);
      expect(file.generation).toBe(1);
      const [event, last, ...more] = yield* file.read(4096);
      expect(event).toEqual({
        type: UMMUNOTIFY_INVAL,
        flags: UMMUNOTIFY_HINT,
        hintStart: BASE + PAGE,
        hintEnd: BASE + 2 * PAGE,
        userCookieCounter: 42,
      });
      expect(last).toMatchObject({ type: UMMUNOTIFY_LAST, userCookieCounter: 1 });
      expect(more).toEqual([]);
      expect(file.isReadable()).toBe(false);
    });
  });

  it('keeps one event a range: a second change takes the hint away, and is not a second event', () => {
    withFile(function* ({ mm }, file) {
      yield* mm.mmap(BASE, 4 * PAGE, RW);
      yield* file.registerRegion(BASE, BASE + 4 * PAGE, 1);
      yield* file.registerRegion(BASE + 3 * PAGE, BASE + 4 * PAGE, 2);
      yield* mm.munmap(BASE, PAGE);
      yield* mm.munmap(BASE + 3 * PAGE, PAGE);
      expect(file.generation).toBe(2);
      const events = yield* file.read(4096);
      expect(events.map(({ userCookieCounter }) => userCookieCounter)).toEqual([1, 2, 2]);
      expect(events[0]).toMatchObject({ flags: 0, hintStart: BASE, hintEnd: BASE + 4 * PAGE });
      expect(events[1]).toMatchObject({ flags: UMMUNOTIFY_HINT, hintStart: BASE + 3 * PAGE });
    });
  });

  it('says LAST only when the list is empty, across short reads', () => {
    withFile(function* ({ mm }, file) {
      yield* mm.mmap(BASE, 8 * PAGE, RW);
      for (let i = 0; i < 8; i++) {
        yield* file.registerRegion(BASE + i * PAGE, BASE + (i + 1) * PAGE, i);
      }
      yield* mm.munmap(BASE, 8 * PAGE);
      expect(file.generation).toBe(1);
      expect((yield* file.read(3 * 32 + 31)).map(({ type }) => type)).toEqual([0, 0, 0]);
      yield* file.unregisterRegion(5);
      expect((yield* file.read(4 * 32)).map((e) => e.userCookieCounter)).toEqual([3, 4, 6, 7]);
      // Everything has been read, and the reader does not know it yet.
      expect((yield* file.read(32)).map(({ type }) => type)).toEqual([UMMUNOTIFY_LAST]);
      expect(yield* errnoOf(file.read(32))).toBe('EAGAIN');
    });
  });

  it('refuses at registration when the process has its ranges, and loses nothing afterwards', () => {
    withFile(
      function* ({ mm }, file) {
        yield* mm.mmap(BASE, 2 * PAGE, RW);
        yield* file.registerRegion(BASE, BASE + PAGE, 1);
        yield* file.registerRegion(BASE + PAGE, BASE + 2 * PAGE, 2);
        expect(yield* errnoOf(file.registerRegion(BASE, BASE + PAGE, 3))).toBe('ENOMEM');
        for (let i = 0; i < 100; i++) yield* mm.mmap(BASE, 2 * PAGE, RW);
        const cookies = (yield* file.read(4096)).map(({ userCookieCounter }) => userCookieCounter);
        expect(cookies).toEqual([1, 2, 100]);
        yield* file.unregisterRegion(1);
        yield* file.registerRegion(BASE, BASE + PAGE, 3);
      },
      O_NONBLOCK,
      2,
    );
  });

  it('refuses what the driver refuses', () => {
    withFile(function* ({ mm }, file) {
      yield* file.registerRegion(BASE, BASE + PAGE, 7);
      const cases: [string, () => Sim<unknown>, string][] = [
        ['a cookie that is taken', () => file.registerRegion(BASE, BASE + PAGE, 7), 'EINVAL'],
        ['an empty range', () => file.registerRegion(BASE, BASE, 8), 'EINVAL'],
        ['an unknown cookie', () => file.unregisterRegion(8), 'EINVAL'],
        ['features after use', () => file.exchangeFeatures(0), 'EINVAL'],
        ['a second page', () => file.mapCounter(PAGE, PAGE), 'EINVAL'],
        ['two pages', () => file.mapCounter(2 * PAGE), 'EINVAL'],
        ['nothing to read', () => file.read(4096), 'EAGAIN'],
        ['opening for writing', () => new Ummunotify().open(mm, O_RDWR), 'EINVAL'],
      ];
      for (const [what, call, errno] of cases) expect(yield* errnoOf(call()), what).toBe(errno);
      yield* file.close();
      expect(yield* errnoOf(file.read(4096)), 'a closed file').toBe('EBADF');
    });
  });

  it('wakes a reader that sleeps', () => {
    withFile(function* (host, file) {
      const { mm } = host;
      yield* mm.mmap(BASE, PAGE, RW);
      yield* file.registerRegion(BASE, BASE + PAGE, 9);
      let woken = -1;
      host.spawn(
        'reader',
        (function* (): Sim<void> {
          const [event] = yield* file.read(32);
          woken = event?.userCookieCounter ?? -2;
        })(),
      );
      yield* host.sleep(1e9);
      expect(woken).toBe(-1);
      yield* mm.munmap(BASE, PAGE);
      yield* host.sleep(1e9);
      expect(woken).toBe(9);
    }, 0);
  });

  it('is about the memory of whoever opened it, also for a child that shares the file', () => {
    withFile(function* ({ mm }, file) {
      yield* mm.mmap(BASE, 2 * PAGE, RW);
      yield* mm.touch(BASE, 2, true);
      yield* file.registerRegion(BASE, BASE + PAGE, 1);
      yield* file.registerRegion(BASE + PAGE, BASE + 2 * PAGE, 2);
      const child = yield* mm.fork('child');
      file.share();
      // The parent's pages have become read-only, to be copied: that is a change of both ranges.
      expect((yield* file.read(4096)).map((e) => e.userCookieCounter).slice(0, 2)).toEqual([1, 2]);
      const { generation } = file;
      yield* child.touch(BASE, 1, true);
      yield* child.munmap(BASE, 2 * PAGE);
      yield* child.exit();
      expect(file.generation).toBe(generation);
      yield* file.close();
      yield* mm.munmap(BASE, PAGE);
      expect(file.generation).toBe(generation + 1);
      yield* file.close();
      expect(yield* errnoOf(file.close())).toBe('EBADF');
      yield* mm.munmap(BASE + PAGE, PAGE);
      expect(file.generation).toBe(generation + 1);
    });
  });

  it('outlives its process in the hands of a child, with the events that nobody has read', () => {
    const { host, run } = makeBench();
    const done = run(
      (function* (): Sim<void> {
        const parent = host.createProcess('parent');
        const module = new Ummunotify(1);
        const file = yield* module.open(parent.mm, O_NONBLOCK);
        yield* parent.mm.mmap(BASE, PAGE, RW);
        yield* parent.mm.touch(BASE, 1, true);
        yield* file.registerRegion(BASE, BASE + PAGE, 1);
        yield* parent.mm.munmap(BASE, PAGE);
        yield* parent.exit();
        expect((yield* file.read(4096)).map((e) => e.userCookieCounter)).toEqual([1, 1]);
        yield* file.close();
        // Its ranges are free again for another process, and were never another's.
        const other = yield* module.open(host.mm, O_NONBLOCK);
        yield* other.registerRegion(BASE, BASE + PAGE, 1);
        yield* other.close();
      })(),
    );
    expect(done, host.scheduler.unfinished().join()).toBe(true);
    host.checkLeaks();
  });

  it('never loses a range that changed, and reports none that did not', () => {
    const action = fc.oneof(
      fc.record({
        name: fc.constantFrom('register' as const, 'unregister' as const),
        cookie: fc.nat(9),
        page: fc.nat(15),
        count: fc.integer({ min: 1, max: 6 }),
      }),
      fc.record({
        name: fc.constantFrom('mmap' as const, 'munmap' as const, 'mprotect' as const),
        cookie: fc.constant(0),
        page: fc.nat(15),
        count: fc.integer({ min: 1, max: 6 }),
      }),
      fc.record({
        name: fc.constant('read' as const),
        cookie: fc.constant(0),
        page: fc.constant(0),
        count: fc.integer({ min: 1, max: 6 }),
      }),
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 40 }), (actions) => {
        withFile(function* ({ mm }, file) {
          const ranges = new Map<number, { start: number; end: number }>();
          const present = new Set<number>();
          // Ranges that lost a page and were not read since, and those that a call came near.
          const must = new Set<number>();
          const may = new Set<number>();
          const take = (event: UmmunotifyEvent): void => {
            if (event.type === UMMUNOTIFY_LAST) {
              expect([...must]).toEqual([]);
              expect(event.userCookieCounter).toBe(file.generation);
              return;
            }
            must.delete(event.userCookieCounter);
            expect(may.delete(event.userCookieCounter)).toBe(true);
          };
          const change = (from: number, count: number): void => {
            for (const [cookie, range] of ranges) {
              if (range.start >= from + count || range.end <= from) continue;
              may.add(cookie);
              for (let page = Math.max(from, range.start); page < range.end; page++) {
                if (page < from + count && present.has(page)) must.add(cookie);
              }
            }
          };
          for (const { name, cookie, page, count } of actions) {
            const start = BASE + page * PAGE;
            const length = count * PAGE;
            const before = file.generation;
            switch (name) {
              case 'register':
                if (ranges.has(cookie)) break;
                ranges.set(cookie, { start: page, end: page + count });
                yield* file.registerRegion(start, start + length, cookie);
                break;
              case 'unregister':
                if (!ranges.delete(cookie)) break;
                must.delete(cookie);
                may.delete(cookie);
                yield* file.unregisterRegion(cookie);
                break;
              case 'read':
                if (file.isReadable()) (yield* file.read(count * 32)).forEach(take);
                break;
              case 'munmap':
                change(page, count);
                yield* mm.munmap(start, length);
                for (let i = page; i < page + count; i++) present.delete(i);
                break;
              default:
                change(page, count);
                yield* mm.mmap(start, length, RW);
                yield* mm.touch(start, count, true);
                for (let i = page; i < page + count; i++) present.add(i);
                if (name === 'mmap') break;
                change(page, count);
                yield* mm.mprotect(start, length, PROT_READ);
            }
            if (must.size > 0) expect(file.isReadable()).toBe(true);
            expect(file.generation - before).toBeLessThanOrEqual(name === 'mprotect' ? 2 : 1);
          }
          while (file.isReadable()) (yield* file.read(4096)).forEach(take);
          expect([...must]).toEqual([]);
        });
      }),
      { numRuns: 60, seed: 17 },
    );
  });
});
