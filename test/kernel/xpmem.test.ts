import { describe, expect, it } from 'vitest';
import type { SharedSegment } from '../../kernel/clients/shared-segment.ts';
import { type Attachment, Xpmem } from '../../kernel/clients/xpmem.ts';
import { type Errno, PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import { migratePages } from '../../kernel/mm/migrate/move-pages.ts';
import { CAUSE_SWAP } from '../../kernel/mm/notify/invalidation.ts';
import { FRAME_EXTERNAL_RMAP } from '../../kernel/mm/physical/frames.ts';
import { US } from '../../transport/index.ts';
import { BASE, type Bench, makeBench, PAGE, refusal, runCleanly } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
const PAGES = 8;

interface Attached {
  readonly xpmem: Xpmem;
  readonly segid: number;
  readonly apid: number;
  readonly attachment: Attachment;
}

function* attach({ host }: Bench, pages = PAGES): Sim<Attached> {
  yield* host.mm.mmap(BASE, pages * PAGE, RW);
  const xpmem = yield* Xpmem.load(host.ram);
  const segid = yield* xpmem.make(host.mm, BASE, pages * PAGE);
  const apid = xpmem.get(segid, true);
  return { xpmem, segid, apid, attachment: xpmem.attach(apid, 0, pages * PAGE) };
}

describe('XPMEM on one host', () => {
  it('maps the memory of another process, with a reference and the exported flag', () => {
    const bench = makeBench();
    const { mm } = bench.host;
    const { frames } = mm.memory;
    runCleanly(
      bench,
      (function* (): Sim<void> {
        const { xpmem, attachment } = yield* attach(bench);
        yield* mm.write(BASE + PAGE - 1, Uint8Array.of(1, 2));
        expect([...(yield* attachment.read(PAGE - 1, 2))]).toEqual([1, 2]);
        yield* attachment.write(PAGE, Uint8Array.of(3));
        expect([...mm.read(BASE + PAGE - 1, 2)]).toEqual([1, 3]);
        const frame = mm.pages.followPage(BASE / PAGE, false);
        expect(frames.references[frame]).toBe(2);
        expect(frames.flags[frame] & FRAME_EXTERNAL_RMAP).not.toBe(0);
        const other = mm.pages.followPage(BASE / PAGE + 2, false);
        expect(other).toBe(-1);

        yield* mm.munmap(BASE, PAGE);
        expect(frames.references[frame]).toBe(0);
        expect(yield* refusal(attachment.read(0, 1))).toBe('EFAULT');
        yield* mm.mmap(BASE, PAGE, RW);
        expect([...(yield* attachment.read(PAGE - 1, 2))]).toEqual([0, 3]);
        yield* xpmem.unload();
      })(),
    );
  });

  it('makes faults wait while the segment is recalled, and loses no write', () => {
    const bench = makeBench({ cpus: 4, memoryNodes: 2, memoryBytes: 2048 * PAGE });
    const { mm } = bench.host;
    runCleanly(
      bench,
      (function* (): Sim<void> {
        const { xpmem, attachment } = yield* attach(bench);
        const seen: number[] = [];
        const attacher = bench.host.spawn(
          'attacher',
          (function* (): Sim<void> {
            for (let round = 0; round < 400; round++) {
              yield* attachment.write((round % PAGES) * PAGE, Uint8Array.of(round));
              seen.push(...(yield* attachment.read((round % PAGES) * PAGE, 1)));
            }
          })(),
        );
        let node = 0;
        while (!attacher.done.done) {
          yield* migratePages(mm.state, node, 1 - node);
          node = 1 - node;
          yield* bench.host.sleep(2 * US);
        }
        expect(seen).toEqual(Array.from({ length: 400 }, (_, round) => round % 256));
        expect(mm.memory.counters.pgmigrate_success).toBeGreaterThan(10);
        const { counters } = xpmem.lookUp(1, true) as SharedSegment;
        expect(counters.faultsHeldOff).toBeGreaterThan(5);
        yield* xpmem.unload();
      })(),
    );
  });

  it('lets shared pages be swapped out and found again', () => {
    const bench = makeBench({ memoryBytes: 64 * PAGE });
    const { mm } = bench.host;
    const pages = 100;
    runCleanly(
      bench,
      (function* (): Sim<void> {
        const { xpmem, attachment } = yield* attach(bench, pages);
        for (let page = 0; page < pages; page++) {
          yield* attachment.write(page * PAGE, Uint8Array.of(page));
        }
        expect(mm.memory.counters.pswpout).toBeGreaterThan(pages - 64);
        for (let page = 0; page < pages; page++) {
          expect([...(yield* attachment.read(page * PAGE, 1))]).toEqual([page]);
        }
        yield* xpmem.unload();
      })(),
    );
  });

  it('is asked by the reverse map for exported pages, and for no others', () => {
    const bench = makeBench();
    const { mm, ram } = bench.host;
    const { frames, pageLocks, rmapNotifiers } = ram;
    runCleanly(
      bench,
      (function* (): Sim<void> {
        const { xpmem, attachment } = yield* attach(bench);
        yield* mm.touch(BASE, 2, true);
        yield* attachment.write(0, Uint8Array.of(1));
        for (const page of [0, 1]) {
          const frame = mm.pages.followPage(BASE / PAGE + page, false);
          yield* pageLocks.lock(frame);
          yield* rmapNotifiers.invalidatePage(frame, CAUSE_SWAP);
          expect(rmapNotifiers.isExported(frame)).toBe(false);
          pageLocks.unlock(frame);
          expect(frames.references[frame]).toBe(1);
        }
        expect(rmapNotifiers.invalidations).toBe(1);
        expect(attachment.grants.count).toBe(0);
        expect([...(yield* attachment.read(0, 1))]).toEqual([1]);
        yield* xpmem.unload();
      })(),
    );
  });

  it('refuses by name', () => {
    const bench = makeBench();
    const process = bench.host.createProcess('owner');
    runCleanly(
      bench,
      (function* (): Sim<void> {
        const { xpmem, attachment, apid } = yield* attach(bench);
        yield* process.mm.mmap(BASE, PAGE, PROT_READ);
        const readOnly = yield* xpmem.make(process.mm, BASE, 2 * PAGE, false);
        const reading = xpmem.get(readOnly, false);
        const reader = xpmem.attach(reading, 0, 2 * PAGE);
        const call = function* (body: () => unknown): Sim<void> {
          yield 0;
          body();
        };
        const one = Uint8Array.of(1);
        const table: [string, Errno | undefined, Sim<unknown>][] = [
          ['a segment of half a page', 'EINVAL', xpmem.make(process.mm, BASE, 100)],
          ['a segment that is not there', 'ENOENT', call(() => xpmem.get(99, false))],
          ['a write to a read-only segment', 'EACCES', call(() => xpmem.get(readOnly, true))],
          ['an access that is not there', 'ENOENT', call(() => xpmem.attach(99, 0, PAGE))],
          ['more than the segment', 'EINVAL', call(() => xpmem.attach(apid, PAGE, PAGES * PAGE))],
          ['beyond the attachment', 'EFAULT', attachment.read(PAGES * PAGE, 1)],
          ['a write through a reader', 'EACCES', reader.write(0, one)],
          ['a read of what the owner has', undefined, reader.read(0, 1)],
          ['a read of what it has not', 'EFAULT', reader.read(PAGE, 1)],
          ['a segment that is not there to remove', 'ENOENT', xpmem.remove(99)],
          ['detaching', undefined, xpmem.detach(attachment)],
          ['detaching twice', 'EINVAL', xpmem.detach(attachment)],
        ];
        for (const [what, errno, body] of table) {
          expect([what, yield* refusal(body)]).toEqual([what, errno]);
        }
        yield* process.exit();
        expect(yield* refusal(reader.read(0, 1))).toBe('ESRCH');
        yield* xpmem.release(reading);
        expect(yield* refusal(xpmem.release(reading))).toBe('ENOENT');
        yield* xpmem.unload();
      })(),
    );
  });
});
