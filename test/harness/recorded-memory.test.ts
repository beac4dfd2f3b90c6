/**
 * Replaying the memory of a recorded rank ends in the memory that the recorded process had: its
 * /proc/self/maps and /proc/self/pagemap at the end are part of the recording.
 */
import { describe, expect, it } from 'vitest';
import { readEnd, readTrace } from '../../harness/trace/reader.ts';
import { RecordedMemory } from '../../harness/workload/recorded-memory.ts';
import type { AddressSpace, Sim } from '../../kernel/index.ts';
import { writeRun } from '../fixtures/recorded-run.ts';
import { makeBench, PAGE } from '../kernel/bench.ts';
import { temporaryFolder } from './fixtures.ts';

/** What the recorded pages fall short of, at most: helper threads touched pages unrecorded. */
const UNRECORDED_PAGES = 99;
/** The stack grows without a system call; the replay maps all it may grow at once. */
const STACK_GROWTH = 8 * 2 ** 20;

interface EndState {
  /** Protection of each mapped page by page number, but of the stack. */
  readonly mapped: Map<number, string>;
  readonly stack: { readonly start: number; readonly end: number };
  readonly anonymous: Set<number>;
}

function endOf(rank: number): EndState {
  const { mappings, resident } = readEnd('qe-mmap128k', rank);
  const mapped = new Map<number, string>();
  const anonymous = new Set<number>();
  let stack = { start: 0, end: 0 };
  for (const { start, end, prot, area } of mappings) {
    if (area === 'stack') stack = { start: start - STACK_GROWTH, end };
    else for (let page = start / PAGE; page < end / PAGE; page++) mapped.set(page, textOf(prot));
  }
  for (const run of resident) {
    const first = run.address / PAGE;
    for (let page = first; run.anonymous && page < first + run.pageCount; page++) {
      anonymous.add(page);
    }
  }
  return { mapped, stack, anonymous };
}

/** Nobody uses the memory: there is nothing to let go of. */
function* nothing(): Sim<void> {}

function replay(rank: number): AddressSpace {
  const { host, run } = makeBench({ memoryBytes: 2 ** 30, swapBytes: 0 });
  const trace = readTrace('qe-mmap128k', rank);
  const memory = new RecordedMemory(host.mm, trace, nothing);
  const done = run(
    (function* (): Sim<void> {
      yield* memory.restore();
      for (const event of trace.events) yield* memory.step(event);
    })(),
  );
  expect(done).toBe(true);
  host.checkLeaks();
  return host.mm;
}

function textOf(prot: number): string {
  return ['r', 'w', 'x'].map((letter, i) => (prot & (1 << i) ? letter : '-')).join('');
}

describe('the memory of a recorded rank, replayed', () => {
  it.each([0, 1])('ends as it did: rank %i', (rank) => {
    const mm = replay(rank);
    const end = endOf(rank);

    const differences: string[] = [];
    const left = new Map(end.mapped);
    for (const { start, end: stop, prot } of mm.mappings()) {
      for (let page = start / PAGE; page < stop / PAGE; page++) {
        if (page * PAGE >= end.stack.start && page * PAGE < end.stack.end) continue;
        const was = left.get(page);
        if (was !== textOf(prot)) differences.push(`${(page * PAGE).toString(16)} ${was} ${prot}`);
        left.delete(page);
      }
    }
    expect(differences).toEqual([]);
    expect(left.size).toBe(0);

    let extra = 0;
    const missing = new Set(end.anonymous);
    for (const { address, pageCount, anonymous } of mm.residency()) {
      const first = address / PAGE;
      for (let page = first; page < first + pageCount; page++) {
        missing.delete(page);
        // File pages come around a fault as the page cache has them, here and there.
        if (anonymous && !end.anonymous.has(page)) extra++;
      }
    }
    expect(extra).toBe(0);
    expect(missing.size).toBeLessThanOrEqual(UNRECORDED_PAGES);
  });

  it('touches mappings with different rights, and lets go of no more than goes away', () => {
    const lines = [
      '0\tpf\t11000\t2\tu\t0',
      '0\tbrk\t555500003000\t12288',
      '0\tbrk\t555500001800\t-6144',
      '0\tmremap\t12000\t8192\t12000\t4096\t0',
      '0\tmremap\t12000\t4096\t12000\t12288\t0',
      '0\tmremap\t12000\t12288\t20000\t4096\t3',
    ];
    const maps = ['10000-12000 r--p 00000000 00:00 0', '12000-14000 rw-p 00000000 00:00 0'];
    const trace = readTrace(writeRun(temporaryFolder(), [{ maps, events: lines }]), 0);
    const { host, run } = makeBench();
    const gone: string[] = [];
    const memory = new RecordedMemory(host.mm, trace, (address, length) => {
      gone.push(`${address.toString(16)}+${length / PAGE}`);
      return nothing();
    });
    run(
      (function* (): Sim<void> {
        yield* memory.restore();
        for (const event of trace.events) yield* memory.step(event);
      })(),
    );
    expect(gone).toEqual(['555500002000+1', '13000+1', '12000+3', '20000+1']);
    expect(host.mm.mappings()).toMatchObject([
      { start: 0x10000, end: 0x12000, prot: 1 },
      { start: 0x20000, end: 0x21000, prot: 3 },
      { start: 0x555500000000, end: 0x555500002000, prot: 3 },
    ]);
  });
});
