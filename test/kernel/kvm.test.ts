import { describe, expect, it } from 'vitest';
import { defaultKvmCosts, Kvm, type KvmPlan } from '../../kernel/clients/kvm.ts';
import { type Errno, PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import { US } from '../../transport/index.ts';
import { BASE, type Bench, makeBench, PAGE, refusal, runCleanly } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
/** Where the guest has its memory, by guest virtual address. */
const GUEST = 0x10_0000;
const PAGES = 16;

/** A guest process that maps PAGES guest frames from gfn 0 on. */
function guestPages(): Map<number, number> {
  return new Map(Array.from({ length: PAGES }, (_, gfn) => [GUEST / PAGE + gfn, gfn]));
}

function* machine({ host }: Bench, plan: KvmPlan = {}): Sim<Kvm> {
  yield* host.mm.mmap(BASE, PAGES * PAGE, RW);
  const kvm = yield* Kvm.create(host.mm, plan);
  kvm.addSlot({ firstGfn: 0, pageCount: PAGES, address: BASE });
  return kvm;
}

describe('KVM', () => {
  it('shows the guest the memory of the process, and the process what the guest writes', () => {
    const bench = makeBench();
    const { mm } = bench.host;
    runCleanly(
      bench,
      (function* (): Sim<void> {
        const kvm = yield* machine(bench);
        const vcpu = kvm.createVcpu(guestPages());
        yield* mm.write(BASE + PAGE - 2, Uint8Array.of(1, 2, 3, 4));
        expect([...(yield* vcpu.read(GUEST + PAGE - 2, 4))]).toEqual([1, 2, 3, 4]);
        yield* vcpu.write(GUEST + PAGE - 1, Uint8Array.of(7, 8));
        expect([...mm.read(BASE + PAGE - 2, 4)]).toEqual([1, 7, 8, 4]);
        yield* kvm.destroy();
      })(),
    );
  });

  it('holds a reference for each shadow entry, and drops the whole chain of a guest frame', () => {
    const bench = makeBench();
    const { mm } = bench.host;
    const { frames } = mm.memory;
    runCleanly(
      bench,
      (function* (): Sim<void> {
        const kvm = yield* machine(bench);
        const vcpus = [kvm.createVcpu(guestPages()), kvm.createVcpu(guestPages())];
        yield* mm.write(BASE, Uint8Array.of(5));
        for (const vcpu of vcpus) yield* vcpu.read(GUEST, 1);
        const frame = mm.pages.followPage(BASE / PAGE, false);
        expect(frames.references[frame]).toBe(3);
        expect(mm.notifiers.references.countOf(kvm)).toBe(2);
        // Used since it was last asked; the second question is about the time since the first.
        expect([yield* kvm.agePage(BASE), yield* kvm.agePage(BASE)]).toEqual([true, false]);

        yield* mm.madviseDontneed(BASE, PAGE);
        expect(frames.references[frame]).toBe(0);
        expect(kvm.spteCount).toBe(0);
        for (const vcpu of vcpus) expect([...(yield* vcpu.read(GUEST, 1))]).toEqual([0]);
        yield* kvm.destroy();
        expect(kvm.spteCount).toBe(0);
      })(),
    );
  });

  it.each([
    [1, PAGES],
    [8, PAGES / 8],
    [512, 1],
  ])('takes mmu_lock once for each %i pages of an invalidation', (batchPages, locks) => {
    const bench = makeBench();
    const { mm } = bench.host;
    runCleanly(
      bench,
      (function* (): Sim<void> {
        const kvm = yield* machine(bench, { batchPages });
        const vcpu = kvm.createVcpu(guestPages());
        yield* vcpu.read(GUEST, PAGES * PAGE);
        const before = kvm.lock.acquisitions;
        yield* mm.munmap(BASE, PAGES * PAGE);
        // One more at the begin and one at the end, for the count of invalidations.
        expect(kvm.lock.acquisitions - before).toBe(locks + 2);
        expect(kvm.counters.sptesDropped).toBe(PAGES);
        expect(kvm.counters.pagesInvalidated).toBe(PAGES);
        yield* kvm.destroy();
      })(),
    );
  });

  it('starts a fault again when the page went away under it', () => {
    const bench = makeBench();
    const { mm } = bench.host;
    runCleanly(
      bench,
      (function* (): Sim<void> {
        const kvm = yield* machine(bench);
        const vcpu = kvm.createVcpu(guestPages());
        const guest = bench.host.spawn(
          'guest',
          (function* (): Sim<void> {
            for (let i = 0; i < 300; i++) {
              yield* vcpu.write(GUEST + (i % 4) * PAGE, Uint8Array.of(i));
              yield* bench.host.sleep(1 * US);
            }
          })(),
        );
        while (!guest.done.done) {
          yield* mm.madviseDontneed(BASE, 4 * PAGE);
          yield* bench.host.sleep(1 * US);
        }
        expect(kvm.counters.retries).toBeGreaterThan(10);
        yield* kvm.destroy();
      })(),
    );
  });

  it('lets guest memory be swapped out and found again', () => {
    const bench = makeBench({ memoryBytes: 64 * PAGE });
    const { mm } = bench.host;
    const count = 96;
    runCleanly(
      bench,
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, count * PAGE, RW);
        const kvm = yield* Kvm.create(mm);
        kvm.addSlot({ firstGfn: 0, pageCount: count, address: BASE });
        const pages = Array.from({ length: count }, (_, gfn): [number, number] => [gfn, gfn]);
        const vcpu = kvm.createVcpu(new Map(pages));
        for (let gfn = 0; gfn < count; gfn++) yield* vcpu.write(gfn * PAGE, Uint8Array.of(gfn + 1));
        expect(mm.memory.counters.pswpout).toBeGreaterThan(count - 64);
        for (let gfn = 0; gfn < count; gfn++) {
          expect([...(yield* vcpu.read(gfn * PAGE, 1))]).toEqual([gfn + 1]);
        }
        yield* kvm.destroy();
      })(),
    );
  });

  it('hears of reclaim while it lets go of everything at the end of the process', () => {
    const bench = makeBench({ cpus: 4, memoryBytes: 1024 * PAGE, swapBytes: 4096 * PAGE });
    const { host } = bench;
    const process = host.createProcess('machine');
    const count = 600;
    runCleanly(
      bench,
      (function* (): Sim<void> {
        const { mm } = process;
        const other = host.createProcess('other').mm;
        yield* mm.mmap(BASE, count * PAGE, RW);
        yield* other.mmap(BASE, 2000 * PAGE, RW);
        // Letting go takes so long that pages are swapped out in the middle of it.
        const costs = { ...defaultKvmCosts, rmapPagePs: 20 * US };
        const kvm = yield* Kvm.create(mm, { batchPages: 1, costs });
        kvm.addSlot({ firstGfn: 0, pageCount: count, address: BASE });
        const pages = Array.from({ length: count }, (_, gfn): [number, number] => [gfn, gfn]);
        const vcpu = kvm.createVcpu(new Map(pages));
        for (let gfn = 0; gfn < count; gfn++) yield* vcpu.write(gfn * PAGE, Uint8Array.of(1));
        const pressing = host.spawn('pressing', other.touch(BASE, 2000, true));
        yield* process.exit();
        yield pressing.done;
        expect(kvm.spteCount).toBe(0);
      })(),
    );
  });

  it('refuses what it cannot do, by name', () => {
    const bench = makeBench();
    const { mm } = bench.host;
    runCleanly(
      bench,
      (function* (): Sim<void> {
        const kvm = yield* machine(bench);
        kvm.addSlot({ firstGfn: 100, pageCount: 1, address: BASE, readOnly: true });
        kvm.addSlot({ firstGfn: 200, pageCount: 1, address: BASE + PAGES * PAGE });
        const pages = new Map([
          [1, 50],
          [2, 100],
          [3, 200],
        ]);
        const vcpu = kvm.createVcpu(pages);
        const one = Uint8Array.of(1);
        const add = function* (firstGfn: number, pageCount: number, address: number): Sim<void> {
          yield 0;
          kvm.addSlot({ firstGfn, pageCount, address });
        };
        const table: [string, Errno | undefined, Sim<unknown>][] = [
          ['a page the guest does not map', 'EFAULT', vcpu.read(0, 1)],
          ['a guest frame without a slot', 'EFAULT', vcpu.read(PAGE, 1)],
          ['a write to a read-only slot', 'EFAULT', vcpu.write(2 * PAGE, one)],
          ['a read of it', undefined, vcpu.read(2 * PAGE, 1)],
          ['an address that the process does not map', 'EFAULT', vcpu.read(3 * PAGE, 1)],
          ['a slot over another one', 'EINVAL', add(8, 100, BASE)],
          ['an empty slot', 'EINVAL', add(300, 0, BASE)],
          ['a slot that is not on a page', 'EINVAL', add(300, 1, BASE + 8)],
          ['taking away a slot that is not there', 'EINVAL', kvm.removeSlot(7)],
          ['taking away one that is', undefined, kvm.removeSlot(100)],
          ['a read of what is gone', 'EFAULT', vcpu.read(2 * PAGE, 1)],
        ];
        for (const [what, errno, body] of table)
          expect([what, yield* refusal(body)]).toEqual([what, errno]);
        yield* mm.exit();
        expect(yield* refusal(vcpu.read(0x1000, 1))).toBe('ESRCH');
        expect(kvm.spteCount).toBe(0);
      })(),
    );
  });
});
