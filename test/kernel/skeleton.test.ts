/**
 * The skeleton drivers of the notifier patch (S3), and the race that V6 loses and V7 does not.
 */
import { describe, expect, it } from 'vitest';
import { POPULATE_EAGAIN, POPULATE_EFAULT, type Skeleton } from '../../kernel/clients/skeleton.ts';
import { SkeletonV6 } from '../../kernel/clients/skeleton-v6.ts';
import { SkeletonV7 } from '../../kernel/clients/skeleton-v7.ts';
import { type AddressSpace, PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import { CAUSE_CLEAR } from '../../kernel/mm/notify/invalidation.ts';
import { FRAME_DIRTY } from '../../kernel/mm/physical/frames.ts';
import { PTE_DIRTY } from '../../kernel/mm/virtual/page-table.ts';
import { NS, RandomStream, US } from '../../transport/index.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
const PAGES = 8;

const versions = [
  { name: 'V6', Driver: SkeletonV6 },
  { name: 'V7', Driver: SkeletonV7 },
] as const;

describe.each(versions)('skeleton driver $name', ({ Driver }) => {
  function story(body: (skeleton: Skeleton, mm: AddressSpace) => Sim<void>): void {
    const { host, run } = makeBench();
    const done = run(
      (function* (): Sim<void> {
        yield* host.mm.mmap(BASE, PAGES * PAGE, RW);
        const skeleton = new Driver(host.mm);
        yield* host.mm.notifiers.attach(skeleton);
        yield* body(skeleton, host.mm);
        yield* host.mm.notifiers.detach(skeleton);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  }

  it('takes pages in, brings absent ones in by a fault, and says where there is none', () => {
    story(function* (skeleton, mm) {
      yield* mm.touch(BASE, 1, true);
      expect(yield* skeleton.populate(BASE, false, true)).toBe(
        mm.pages.followPage(BASE / PAGE, true),
      );
      const absent = yield* skeleton.populate(BASE + PAGE, false, true);
      expect(absent).toBe(mm.pages.followPage(BASE / PAGE + 1, true));
      expect(skeleton.access(BASE + PAGE, true)).toBe(absent);
      expect(skeleton.access(BASE + 2 * PAGE, false)).toBe(-1);
      expect(yield* skeleton.populate(BASE + PAGES * PAGE, false, false)).toBe(POPULATE_EFAULT);
      expect(skeleton.pageCount).toBe(2);
    });
  });

  it('answers EAGAIN while an invalidation is running, and only then', () => {
    story(function* (skeleton, mm) {
      yield* mm.touch(BASE, 1, true);
      const outer = yield* mm.notifiers.begin(BASE + 4 * PAGE, BASE + 6 * PAGE, CAUSE_CLEAR);
      const inner = yield* mm.notifiers.begin(BASE + 5 * PAGE, BASE + 7 * PAGE, CAUSE_CLEAR);
      expect(yield* skeleton.populate(BASE, false, true)).toBe(POPULATE_EAGAIN);
      yield* mm.notifiers.end(outer);
      expect(yield* skeleton.populate(BASE, true, true)).toBe(POPULATE_EAGAIN);
      yield* mm.notifiers.end(inner);
      expect(yield* skeleton.populate(BASE, true, true)).toBeGreaterThanOrEqual(0);
    });
  });

  it('answers EAGAIN in atomic context when the mmap lock is taken or the page is absent', () => {
    story(function* (skeleton, mm) {
      yield* mm.touch(BASE, 1, true);
      yield* mm.state.lock.lockWrite();
      expect(yield* skeleton.populate(BASE, true, true)).toBe(POPULATE_EAGAIN);
      mm.state.lock.unlockWrite();
      expect(yield* skeleton.populate(BASE + PAGE, true, true)).toBe(POPULATE_EAGAIN);
      expect(yield* skeleton.populate(BASE, true, true)).toBeGreaterThanOrEqual(0);
    });
  });

  it('loses its entries at every change of the process, and what the device wrote is not lost', () => {
    story(function* (skeleton, mm) {
      const { frames } = mm.memory;
      yield* mm.touch(BASE, PAGES, true);
      for (let page = 0; page < PAGES; page++) {
        yield* skeleton.populate(BASE + page * PAGE, false, true);
      }
      const [written, clean] = [skeleton.access(BASE, true), skeleton.access(BASE + PAGE, false)];
      for (const frame of [written, clean]) frames.flags[frame] &= ~FRAME_DIRTY;
      yield* mm.mprotect(BASE, 2 * PAGE, PROT_READ);
      expect(skeleton.pageCount).toBe(PAGES - 2);
      expect(frames.flags[written] & FRAME_DIRTY).toBe(FRAME_DIRTY);
      expect(frames.flags[clean] & FRAME_DIRTY).toBe(0);
      yield* mm.munmap(BASE + 3 * PAGE, PAGE);
      expect(skeleton.pageCount).toBe(PAGES - 3);
      expect(skeleton.access(BASE + 3 * PAGE, false)).toBe(-1);
      expect(skeleton.access(BASE + 4 * PAGE, false)).toBeGreaterThanOrEqual(0);
    });
  });
});

describe('what a device has written', () => {
  /** Bytes of the page after the device wrote pattern 77 to it and reclaim took it, as a hash. */
  function written(tells: boolean): { readonly page: number; readonly expected: number } {
    const { host, run } = makeBench();
    const { mm, ram } = host;
    let result = { page: 0, expected: 0 };
    function* evict(): Sim<void> {
      for (let round = 0; round < 50 && mm.pages.followPage(BASE / PAGE, false) >= 0; round++) {
        yield* ram.reclaim.shrink(1);
        yield* host.sleep(1000 * US);
      }
      expect(mm.pages.followPage(BASE / PAGE, false)).toBe(-1);
    }
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, PAGE, RW);
        yield* mm.mmap(BASE + 8 * PAGE, PAGE, RW);
        yield* mm.fill(BASE, PAGE, 1);
        const skeleton = new SkeletonV7(mm);
        yield* mm.notifiers.attach(skeleton);
        yield* evict();
        // Read in again: clean, with a copy in swap that would do if nobody had written.
        yield* mm.touch(BASE, 1, false);
        let frame = -1;
        while (frame < 0) frame = yield* skeleton.populate(BASE, false, true);
        mm.state.table.set(BASE / PAGE, mm.state.table.get(BASE / PAGE) & ~PTE_DIRTY);
        ram.frames.flags[frame] &= ~FRAME_DIRTY;
        ram.frames.content.setPattern(frame, 77, 0);
        if (tells) expect(skeleton.access(BASE, true)).toBe(frame);
        yield* evict();
        yield* mm.touch(BASE, 1, false);
        yield* mm.fill(BASE + 8 * PAGE, PAGE, 77);
        result = { page: mm.hash(BASE, PAGE), expected: mm.hash(BASE + 8 * PAGE, PAGE) };
        yield* mm.notifiers.detach(skeleton);
      })(),
    );
    expect(done).toBe(true);
    return result;
  }

  it('survives swap, because the dirty bit of its entry reaches the page', () => {
    const { page, expected } = written(true);
    expect(page).toBe(expected);
  });

  it('would be lost if it did not', () => {
    const { page, expected } = written(false);
    expect(page).not.toBe(expected);
  });
});

/** What came of populating the pages while another thread takes them away, `seed` deciding when. */
function race(Driver: typeof SkeletonV6 | typeof SkeletonV7, seed: number): Record<string, number> {
  const { host, adapter } = makeBench();
  const { mm } = host;
  const random = new RandomStream(seed, 'test', 'skeleton');
  const outcomes = { inserted: 0, retry: 0, returnedOnly: 0 };
  host.spawn(
    'driver',
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, PAGES * PAGE, RW);
      const skeleton = new Driver(mm);
      yield* mm.notifiers.attach(skeleton);
      const other = host.spawn('program', program());
      for (let i = 0; i < 40; i++) {
        const before = mm.notifiers.references.inserted;
        const at = BASE + random.below(PAGES) * PAGE;
        const frame = yield* skeleton.populate(at, random.chance(300_000), random.chance(500_000));
        if (frame < 0) outcomes.retry++;
        else if (mm.notifiers.references.inserted > before) outcomes.inserted++;
        else outcomes.returnedOnly++;
        yield random.below(500) * NS;
      }
      yield other.done;
      yield* mm.notifiers.detach(skeleton);
    })(),
  );
  function* program(): Sim<void> {
    for (let i = 0; i < 40; i++) {
      const [first, count] = [random.below(PAGES), 1 + random.below(PAGES)];
      if (random.chance(500_000)) {
        yield* mm.munmap(BASE + first * PAGE, count * PAGE);
        yield* mm.mmap(BASE, PAGES * PAGE, RW);
      } else yield* mm.madviseDontneed(BASE + first * PAGE, PAGE);
      yield* host.sleep(random.below(2 * US));
    }
  }
  adapter.run(host);
  host.checkLeaks();
  return outcomes;
}

describe('a page that goes away while it is populated', () => {
  const outcomes = (Driver: typeof SkeletonV6 | typeof SkeletonV7): Record<string, number> => {
    const total: Record<string, number> = {};
    for (let seed = 1; seed <= 12; seed++) {
      for (const [outcome, count] of Object.entries(race(Driver, seed))) {
        total[outcome] = (total[outcome] ?? 0) + count;
      }
    }
    return total;
  };

  it('is returned by V6 although it was not inserted', () => {
    const { returnedOnly, inserted } = outcomes(SkeletonV6);
    expect(returnedOnly).toBeGreaterThan(0);
    expect(inserted).toBeGreaterThan(0);
  });

  it('is refused by V7, which returns what it has inserted and nothing else', () => {
    const { returnedOnly, inserted, retry } = outcomes(SkeletonV7);
    expect(returnedOnly).toBe(0);
    expect(inserted).toBeGreaterThan(0);
    expect(retry).toBeGreaterThan(0);
  });
});
