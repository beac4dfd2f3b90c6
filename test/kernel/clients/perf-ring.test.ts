import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { COUNTER_MAX, PerfEvents, rangeOf, tagOf } from '../../../kernel/clients/perf-events.ts';
import { PERF_RECORD_SAMPLE, PerfRing, type RingMode } from '../../../kernel/clients/perf-ring.ts';
import { SystemCallError } from '../../../kernel/errno.ts';
import { PROT_READ, PROT_WRITE, type Sim } from '../../../kernel/index.ts';
import { BASE, makeBench, PAGE } from '../bench.ts';

const RW = PROT_READ | PROT_WRITE;

/** What a ring of `bytes` keeps of records, by a list and nothing else. */
class RingModel {
  private kept: { serial: number; bytes: number }[] = [];
  private dropped = 0;

  constructor(
    private readonly bytes: number,
    private readonly mode: RingMode,
  ) {}

  write(serial: number, bytes: number): void {
    const used = this.kept.reduce((sum, record) => sum + record.bytes, 0);
    const notice = this.dropped > 0 ? 24 : 0;
    if (this.mode === 'drop' && used + bytes + notice > this.bytes - 1) {
      this.dropped++;
      return;
    }
    if (notice > 0 && this.mode === 'drop') {
      this.kept.push({ serial: -this.dropped, bytes: 24 });
      this.dropped = 0;
    }
    this.kept.push({ serial, bytes });
  }

  /** Serial numbers in order, and how many the reader knows to be lost. */
  read(): { serials: number[]; lost: number; overrun: boolean } {
    const used = this.kept.reduce((sum, record) => sum + record.bytes, 0);
    const overrun = used > this.bytes;
    const serials = this.kept.map(({ serial }) => serial);
    this.kept = [];
    if (overrun) return { serials: [], lost: serials.length, overrun };
    const lost = serials.filter((serial) => serial < 0).reduce((sum, serial) => sum - serial, 0);
    return { serials: serials.filter((serial) => serial >= 0), lost, overrun };
  }
}

describe('perf ring', () => {
  it.each(['drop', 'overwrite'] as const)('in %s mode keeps what a list would', (mode) => {
    const action = fc.oneof(
      { weight: 6, arbitrary: fc.integer({ min: 1, max: 120 }) },
      { weight: 1, arbitrary: fc.constant(0) },
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 300 }), (actions) => {
        const ring = new PerfRing(1, mode);
        const model = new RingModel(PAGE, mode);
        let serial = 0;
        let lost = 0;
        const compare = (): void => {
          const found = ring.read();
          const expected = model.read();
          expect(found.records.map(({ body }) => body.getUint32(0, true))).toEqual(
            expected.serials,
          );
          expect([found.lost, found.overrun]).toEqual([expected.lost, expected.overrun]);
          lost += expected.lost;
        };
        for (const words of actions) {
          if (words === 0) compare();
          else {
            const own = serial++;
            ring.write(PERF_RECORD_SAMPLE, words * 8, (body) => body.setUint32(0, own, true));
            model.write(own, words * 8 + 8);
          }
        }
        compare();
        expect(ring.recordsWritten + ring.recordsLost).toBeGreaterThanOrEqual(serial);
        // What was dropped last is not announced before something fits again.
        expect(lost).toBeLessThanOrEqual(ring.recordsLost);
      }),
      { numRuns: 200, seed: 5 },
    );
  });

  it('announces a loss only with the next record that fits', () => {
    const ring = new PerfRing(1, 'drop');
    const put = (): boolean => ring.write(PERF_RECORD_SAMPLE, 56, () => {});
    while (put());
    expect([ring.recordsWritten, ring.recordsLost]).toEqual([63, 1]);
    put();
    expect(ring.read()).toMatchObject({ lost: 0, overrun: false });
    put();
    const { records, lost } = ring.read();
    expect([records.length, lost]).toEqual([1, 2]);
  });

  it.each([0, 3, 6, -1])('refuses %i pages', (pageCount) => {
    expect(() => new PerfRing(pageCount, 'drop')).toThrow(/a ring of .* pages \(EINVAL\)/);
  });
});

describe('perf events', () => {
  it('write a record for each filter that a change matches, with its range', () => {
    const { host, run } = makeBench();
    const { mm } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 4 * PAGE, RW);
        yield* mm.touch(BASE, 4, true);
        const events = yield* PerfEvents.open(mm, { pageCount: 1, mode: 'drop' });
        yield* events.addFilter(7, BASE, BASE + 2 * PAGE);
        yield* events.addFilter(2 ** 40 + 1, BASE + PAGE, BASE + 3 * PAGE);
        yield* events.addFilter(9, BASE + 3 * PAGE, BASE + 4 * PAGE);
        yield* mm.munmap(BASE + PAGE, PAGE);
        const { records } = events.ring.read();
        expect(records.map(tagOf)).toEqual([7, 2 ** 40 + 1]);
        for (const record of records)
          expect(rangeOf(record)).toEqual([BASE + PAGE, BASE + 2 * PAGE]);
        yield* events.close();
        yield* mm.munmap(BASE, PAGE);
        expect(events.ring.read().records).toEqual([]);
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('charge a change for every filter there is, and ummunotify-like order does not help', () => {
    const costOf = (filterCount: number): number => {
      const { host, run } = makeBench();
      const { mm, node } = host;
      let cost = 0;
      run(
        (function* (): Sim<void> {
          yield* mm.mmap(BASE, PAGE, RW);
          const events = yield* PerfEvents.open(mm, { pageCount: 1, mode: 'drop' });
          for (let i = 1; i <= filterCount; i++) {
            yield* events.addFilter(i, BASE + i * PAGE, BASE + (i + 1) * PAGE);
          }
          const start = node.now;
          yield* mm.munmap(BASE, PAGE);
          cost = node.now - start;
        })(),
      );
      return cost;
    };
    const [none, some, many] = [costOf(0), costOf(100), costOf(400)];
    expect(some).toBeGreaterThan(none);
    expect(many - none).toBe(4 * (some - none));
  });

  it('saturate their counters, and give each once', () => {
    const { host, run } = makeBench();
    const { mm } = host;
    const done = run(
      (function* (): Sim<void> {
        const events = yield* PerfEvents.open(mm, {
          pageCount: 1,
          mode: 'overwrite',
          records: 'tag',
        });
        yield* events.addFilter(1, BASE, BASE + PAGE);
        yield* events.addFilter(2, BASE + PAGE, BASE + 2 * PAGE);
        yield* mm.mmap(BASE, 2 * PAGE, RW);
        yield* mm.touch(BASE, 2, true);
        expect(yield* events.readAndClear(100)).toBeDefined();
        for (let i = 0; i < COUNTER_MAX + 10; i++) {
          yield* mm.munmap(BASE, PAGE);
          yield* mm.mmap(BASE, PAGE, RW);
          yield* mm.touch(BASE, 1, true);
        }
        yield* mm.munmap(BASE + PAGE, PAGE);
        expect(yield* events.readAndClear(1)).toEqual([{ tag: 1, count: COUNTER_MAX }]);
        expect(yield* events.readAndClear(100)).toEqual([{ tag: 2, count: 1 }]);
        expect(yield* events.readAndClear(100)).toEqual([]);
        yield* events.close();
      })(),
    );
    expect(done).toBe(true);
  });

  it('are refused at the limits of the process', () => {
    const { host, run } = makeBench({ memlockBytes: 0 });
    const { mm } = host;
    const errnos: string[] = [];
    run(
      (function* (): Sim<void> {
        function* attempt(call: Sim<unknown>): Sim<void> {
          try {
            yield* call;
            errnos.push('none');
          } catch (error) {
            if (!(error instanceof SystemCallError)) throw error;
            errnos.push(error.errno);
          }
        }
        yield* attempt(PerfEvents.open(mm, { pageCount: 3, mode: 'drop' }));
        yield* attempt(PerfEvents.open(mm, { pageCount: 256, mode: 'drop' }));
        const events = yield* PerfEvents.open(mm, { pageCount: 128, mode: 'drop', eventLimit: 3 });
        yield* attempt(events.addFilter(1, BASE, BASE + PAGE));
        yield* attempt(events.addFilter(1, BASE, BASE + PAGE));
        yield* attempt(events.addFilter(2, BASE, BASE));
        yield* attempt(events.addFilter(2, BASE, BASE + PAGE));
        yield* attempt(events.addFilter(3, BASE, BASE + PAGE));
        yield* attempt(events.removeFilter(8));
      })(),
    );
    expect(errnos).toEqual([
      'EINVAL',
      'EPERM',
      'none',
      'EINVAL',
      'EINVAL',
      'none',
      'EMFILE',
      'EBADF',
    ]);
  });
});
