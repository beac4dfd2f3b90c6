/** What may change in memory while a fault, a migration or a system call spends time or sleeps. */
import { expect, it } from 'vitest';
import { PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import { MADV_HUGEPAGE } from '../../kernel/mm/calls/advice.ts';
import { MAP_HUGETLB, MAP_SHARED } from '../../kernel/mm/calls/mapping-calls.ts';
import { movePages } from '../../kernel/mm/migrate/move-pages.ts';
import { CAUSE_MIGRATE } from '../../kernel/mm/notify/invalidation.ts';
import type { MmuNotifier } from '../../kernel/mm/notify/mmu-notifiers.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_READ,
  MS,
  US,
} from '../../transport/index.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
const HUGE = 512 * PAGE;

it('a write that meets a locked page table goes to the file all the same', () => {
  const { host, run } = makeBench();
  const { mm } = host;
  const other = host.createProcess('b').mm;
  const file = mm.memory.files.open('/data');
  const done = run(
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, 4 * PAGE, RW, MAP_SHARED, file);
      yield* other.mmap(BASE, 4 * PAGE, RW, MAP_SHARED, file);
      yield* mm.mmap(BASE + 16 * PAGE, 16 * PAGE, RW);
      yield* mm.touch(BASE, 4, false);
      yield* other.touch(BASE, 4, false);
      const holder = host.spawn(
        'holder',
        (function* (): Sim<void> {
          yield* mm.state.tableLock.lock();
          yield 3 * US;
          mm.state.tableLock.unlock();
        })(),
      );
      // The time of these faults is spent by the write that follows, and is longer than the lock is held.
      expect(mm.tryTouch(BASE + 16 * PAGE, 16, true)).toBe(16);
      yield* host.sleep(2 * US);
      yield* mm.write(BASE + PAGE, new Uint8Array(8).fill(5));
      yield holder.done;
    })(),
  );
  expect(done).toBe(true);
  expect([...other.read(BASE + PAGE, 8)]).toEqual(new Array(8).fill(5));
  host.checkLeaks();
});

it('a huge page that is cut into pieces while it is to be moved stays, and is moved in pieces later', () => {
  const { host, run } = makeBench({ memoryBytes: 4096 * PAGE, memoryNodes: 2 });
  const { mm } = host;
  let cuts = 0;
  const client: MmuNotifier = {
    name: 'cutter',
    *invalidateRangeBegin({ cause }): Sim<void> {
      if (cause !== CAUSE_MIGRATE || cuts++ > 0) return;
      // Sleeps until another thread has unmapped the second half.
      yield host.spawn('munmap', mm.munmap(BASE + HUGE / 2, HUGE / 2)).done;
    },
  };
  const pages = Array.from({ length: 256 }, (_, i) => BASE + i * PAGE);
  const done = run(
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, HUGE, RW);
      yield* mm.madvise(BASE, HUGE, MADV_HUGEPAGE);
      yield* mm.fill(BASE, HUGE, 7);
      expect(mm.state.table.getHuge(BASE / PAGE)).not.toBe(0);
      yield* mm.notifiers.attach(client);
      const before = mm.hash(BASE, HUGE / 2);
      yield* movePages(mm.state, [BASE], [1]);
      yield* movePages(mm.state, pages, new Array<number>(256).fill(1));
      expect([...(yield* movePages(mm.state, pages))]).toEqual(new Array(256).fill(1));
      expect(mm.hash(BASE, HUGE / 2)).toBe(before);
      yield* mm.notifiers.detach(client);
    })(),
    100 * MS,
  );
  expect(done).toBe(true);
  expect(cuts).toBeGreaterThan(0);
  host.checkLeaks();
});

it('two threads that fault on one huge page of the pool take one promise', () => {
  const { host, run } = makeBench({ memoryBytes: 4096 * PAGE, mm: { hugePages: 2 } });
  const { mm, ram } = host;
  const done = run(
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, 2 * HUGE, RW, MAP_HUGETLB);
      const [first, second] = [0, 1].map((i) =>
        host.spawn(`touch ${i}`, mm.touch(BASE + i * PAGE, 1, true)),
      );
      yield first.done;
      yield second.done;
      expect(ram.hugePool.free).toBe(1);
      expect(ram.hugePool.reserved).toBe(1);
      expect(mm.state.hugeReserved).toBe(1);
    })(),
  );
  expect(done).toBe(true);
  host.checkLeaks();
});

it('a file of huge pages is mapped in units of huge pages, and no other file by MAP_HUGETLB', () => {
  const { host, run } = makeBench({ memoryBytes: 4096 * PAGE, mm: { hugePages: 2 } });
  const { mm, ram } = host;
  const huge = ram.files.createShared('/huge', true);
  const plain = ram.files.open('/plain');
  const done = run(
    (function* (): Sim<void> {
      const at = yield* mm.mmap(0, PAGE, RW, MAP_SHARED, huge);
      expect(mm.mappings().map(({ start, end }) => end - start)).toEqual([HUGE]);
      expect(ram.hugePool.reserved).toBe(1);
      const refused = { errno: 'EINVAL' };
      const misplaced = mm.mmap(BASE, HUGE, RW, MAP_SHARED, huge, PAGE);
      expect(() => misplaced.next()).toThrowError(expect.objectContaining(refused));
      const plainHuge = mm.mmap(BASE, HUGE, RW, MAP_SHARED | MAP_HUGETLB, plain);
      expect(() => plainHuge.next()).toThrowError(expect.objectContaining(refused));
      yield* mm.munmap(at, HUGE);
    })(),
  );
  expect(done).toBe(true);
});

it('what is read behind the end of a file that was cut meanwhile is not kept', () => {
  const { host, run } = makeBench();
  const { mm } = host;
  const { files } = mm.memory;
  const file = files.open('/data');
  const done = run(
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, 64 * PAGE, PROT_READ, MAP_SHARED, file);
      // The second waits for the page that the first one reads.
      const readers = [0, 1].map((i) => host.spawn(`reader ${i}`, readFrom(40)));
      yield* host.sleep(20 * US);
      yield* files.truncate(file, PAGE);
      for (const { done } of readers) yield done;
    })(),
  );
  expect(done).toBe(true);
  expect([...file.pages.keys()].filter((index) => index > 0)).toEqual([]);

  function* readFrom(page: number): Sim<void> {
    try {
      yield* mm.touch(BASE + page * PAGE, 1, false);
    } catch (error) {
      expect(error).toMatchObject({ signal: 'SIGBUS' });
    }
  }
});

it('a pin of the hole of an xip file gets a page of its own, by the rules of 2008 too', () => {
  const { host, run } = makeBench({ mm: { pinnedAtFork: 'shared' } });
  const { mm, verbs, ram } = host;
  const file = ram.files.openXip('/xip', 4 * PAGE);
  const done = run(
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, 4 * PAGE, RW, 0, file);
      const mr = yield* verbs.regMr(1, BASE, PAGE, ACCESS_REMOTE_READ);
      expect(ram.frames.pinCounts[ram.zeroFrame]).toBe(0);
      expect(mr.pagesMapped).toBe(1);
      yield* verbs.deregMr(mr);
    })(),
  );
  expect(done).toBe(true);
  host.checkLeaks();
});

it('a process that ends while one of its threads registers memory leaves nothing registered', () => {
  // The thread begins at any time around the end of the process.
  for (let delayUs = 0; delayUs < 100; delayUs += 2) {
    const { host, run } = makeBench();
    const process = host.createProcess('b');
    const { mm, verbs } = process;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 4 * PAGE, RW);
        const thread = host.spawn('register', register(delayUs));
        yield* process.exit();
        yield thread.done;
      })(),
    );
    expect(done).toBe(true);
    expect(verbs.memoryRegions.filter(({ registered }) => registered)).toEqual([]);
    host.checkLeaks();

    function* register(afterUs: number): Sim<void> {
      yield* host.sleep(afterUs * US);
      try {
        yield* verbs.regMr(1, BASE, 4 * PAGE, ACCESS_LOCAL_WRITE | ACCESS_ON_DEMAND);
      } catch (error) {
        expect(error).toMatchObject({ errno: 'ESRCH' });
      }
    }
  }
});
