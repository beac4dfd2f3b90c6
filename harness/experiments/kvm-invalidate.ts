/**
 * A virtual machine loses a large range: invalidated page by page, in batches of 512, or at once (S5).
 *
 * Lameter (seed 001) fears "gazillions of invalidate_page's" when large areas are torn down; Arcangeli
 * answers that KVM has "some fixed amount of work on the rmap structures and each spte" for each page
 * whatever the granularity, so only lock and look-up of the slot can be shared. Look at what of the time
 * for each page goes away from page to batch (where no vcpu runs: lock and look-up; where one runs: a flush
 * of its translations too), what is left from batch to range, and how long a vcpu that faults elsewhere is
 * held off: no fault is let in while an invalidation runs.
 */
import {
  type AddressSpace,
  Kvm,
  MADV_DONTNEED,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type Sim,
} from '../../kernel/index.ts';
import { MS, NS, type TimePs, US } from '../../transport/index.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { Stage } from './stage.ts';

const BASE = 0x7f0000000000;
const OTHER = 0x7e0000000000;
/** Pages of the range that goes away, and of the one that the other vcpu uses. */
const PAGES = 1024;
const OTHER_PAGES = 1024;
const FORMS: readonly (readonly [name: string, batchPages: number])[] = [
  ['page', 1],
  ['512', 512],
  ['range', Number.POSITIVE_INFINITY],
];

interface Teardown {
  readonly spanPs: TimePs;
  readonly locks: number;
  readonly flushes: number;
  /** The longest that a fault of the other vcpu took meanwhile. */
  readonly longestFaultPs: TimePs;
}

function* discard(mm: AddressSpace): Sim<TimePs> {
  const { node } = mm.memory;
  const start = node.now;
  yield* mm.madvise(BASE, PAGES * PAGE_BYTES, MADV_DONTNEED);
  return node.now - start;
}

/** Takes the range from a machine; without one when `batchPages` is 0. */
function teardown(batchPages: number, isRunning: boolean, seed: number): Teardown {
  const stage = new Stage({ seed, host: { cpus: 4 } });
  const { host } = stage;
  const { mm } = host;
  let result: Teardown = { spanPs: 0, locks: 0, flushes: 0, longestFaultPs: 0 };
  stage.run(
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE);
      yield* mm.mmap(OTHER, OTHER_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE);
      yield* mm.touch(BASE, PAGES, true);
      yield* mm.touch(OTHER, OTHER_PAGES, true);
      if (batchPages === 0) {
        result = { ...result, spanPs: yield* discard(mm) };
        return;
      }
      const kvm = yield* Kvm.create(mm, { batchPages });
      kvm.addSlot({ firstGfn: 0, pageCount: PAGES, address: BASE });
      kvm.addSlot({ firstGfn: PAGES, pageCount: OTHER_PAGES, address: OTHER });
      const total = PAGES + OTHER_PAGES;
      const pages = new Map(Array.from({ length: total }, (_, i): [number, number] => [i, i]));
      yield* kvm.createVcpu(pages).write(0, new Uint8Array(PAGES * PAGE_BYTES));
      let [isOver, longestFaultPs] = [false, 0];
      if (isRunning) {
        // One computes on pages that it has, the other goes to new ones all the time.
        const busy = kvm.createVcpu(pages);
        const fresh = kvm.createVcpu(pages);
        const lastPage = (total - 1) * PAGE_BYTES;
        host.spawn(
          'busy vcpu',
          (function* (): Sim<void> {
            while (!isOver) yield* busy.read(lastPage - 64 * PAGE_BYTES, 64 * PAGE_BYTES);
          })(),
        );
        host.spawn(
          'faulting vcpu',
          (function* (): Sim<void> {
            for (let page = PAGES; !isOver && page < total - 128; page++) {
              const start = host.node.now;
              yield* fresh.read(page * PAGE_BYTES, 1);
              const spanPs = host.node.now - start;
              if (spanPs > longestFaultPs) longestFaultPs = spanPs;
            }
          })(),
        );
        yield* host.sleep(MS / 2);
        longestFaultPs = 0;
      }
      const { lock, counters } = kvm;
      const [locks, faults, flushes] = [lock.acquisitions, counters.faults, counters.flushes];
      const spanPs = yield* discard(mm);
      isOver = true;
      yield* host.sleep(MS);
      result = {
        spanPs,
        // Each fault of the other vcpu takes the lock once.
        locks: lock.acquisitions - locks - (counters.faults - faults),
        flushes: counters.flushes - flushes,
        longestFaultPs,
      };
      yield* kvm.destroy();
    })(),
  );
  return result;
}

export const kvmInvalidate: Experiment = {
  name: 'kvm-invalidate',
  systems: ['S5'],
  claims: ['C10'],
  title: 'What does a guest cost when its memory goes away page by page, in batches, or at once?',
  run(seed): ExperimentResult {
    const bare = teardown(0, false, seed);
    const rows: Cell[][] = [];
    const perPage = new Map<string, number>();
    for (const isRunning of [false, true]) {
      for (const [form, batchPages] of FORMS) {
        const { spanPs, locks, flushes, longestFaultPs } = teardown(batchPages, isRunning, seed);
        const pageNs = (spanPs - bare.spanPs) / PAGES / NS;
        perPage.set(`${form} ${isRunning}`, pageNs);
        const vcpus = isRunning ? 2 : 0;
        rows.push([form, vcpus, locks, flushes, pageNs, longestFaultPs / US]);
      }
    }
    const of = (form: string, isRunning: boolean): number =>
      perPage.get(`${form} ${isRunning}`) as number;
    const [idle, busy] = [false, true].map((isRunning) =>
      FORMS.map(([form]) => of(form, isRunning).toFixed(0)).join(', '),
    );
    const isOrdered = [false, true].every(
      (isRunning) => of('page', isRunning) > of('512', isRunning),
    );
    // However it is announced, each page costs its look at the chain and its entry.
    const floor = of('range', false);
    const isLinear = floor > 0 && of('512', false) < 1.1 * floor;
    return {
      columns: ['lock_held_for', 'vcpus', 'locks', 'flushes', 'page_ns', 'longest_fault_us'],
      rows,
      result:
        `page by page, by 512, at once: ${idle} ns a page; with running vcpus ${busy}. ` +
        `Whatever the range, ${floor.toFixed(0)} ns of each page stay`,
      ok: isOrdered && isLinear,
    };
  },
};
