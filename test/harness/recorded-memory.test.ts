/**
 * Replaying the memory of a recorded rank ends in the memory that the recorded process had: its
 * /proc/self/maps and /proc/self/pagemap at the end are in test/fixtures/recorded.
 *
 *     map|stack  addr len prot
 *     res        addr pages a|f     resident; anonymous, or of a file
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { locateTrace, parseTrace, readTrace } from '../../harness/trace/reader.ts';
import { RecordedMemory } from '../../harness/workload/recorded-memory.ts';
import type { AddressSpace, Sim } from '../../kernel/index.ts';
import { makeBench, PAGE } from '../kernel/bench.ts';

/** What the recorded pages fall short of, at most: helper threads touched pages unrecorded. */
const UNRECORDED_PAGES = 99;
/** The stack grows without a system call; the replay maps all it may grow at once. */
const STACK_GROWTH = 8 * 2 ** 20;

interface EndState {
  /** Protection of each mapped page by page number, but of the stack. */
  readonly mapped: Map<number, string>;
  readonly stack: { readonly start: number; readonly end: number };
  readonly anonymous: Set<number>;
  readonly ofFiles: Set<number>;
}

function readEnd(file: string): EndState {
  const mapped = new Map<number, string>();
  const anonymous = new Set<number>();
  const ofFiles = new Set<number>();
  let stack = { start: 0, end: 0 };
  for (const line of gunzipSync(readFileSync(file)).toString().trimEnd().split('\n')) {
    const [kind, address, size, what] = line.split('\t') as [string, string, string, string];
    const start = Number.parseInt(address, 16);
    if (kind === 'stack') stack = { start: start - STACK_GROWTH, end: start + Number(size) };
    const pages = kind === 'res' ? Number(size) : Number(size) / PAGE;
    for (let page = start / PAGE; page < start / PAGE + pages; page++) {
      if (kind === 'map') mapped.set(page, what);
      else if (kind === 'res') (what === 'a' ? anonymous : ofFiles).add(page);
    }
  }
  return { mapped, stack, anonymous, ofFiles };
}

/** Nobody uses the memory: there is nothing to let go of. */
function* nothing(): Sim<void> {}

function replay(traceFile: string): AddressSpace {
  const { host, run } = makeBench({ memoryBytes: 2 ** 30, swapBytes: 0 });
  const trace = readTrace(traceFile);
  const memory = new RecordedMemory(host.mm, trace, nothing);
  memory.restore();
  const done = run(
    (function* (): Sim<void> {
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
    const mm = replay(locateTrace('qe-mmap128k', rank));
    const fixture = `../fixtures/recorded/qe-mmap128k.rank${rank}.end.gz`;
    const end = readEnd(fileURLToPath(new URL(fixture, import.meta.url)));

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
    for (const { start, end: stop } of mm.mappings()) {
      mm.parts.table.forEachUsed(start / PAGE, stop / PAGE, (page) => {
        missing.delete(page);
        if (!end.anonymous.has(page) && !end.ofFiles.has(page)) extra++;
      });
    }
    expect(extra).toBe(0);
    expect(missing.size).toBeLessThanOrEqual(UNRECORDED_PAGES);
  });

  it('touches mappings with different rights, and lets go of no more than goes away', () => {
    const lines = [
      '0\tmap\t10000\t8192\tr--',
      '0\tmap\t12000\t8192\trw-',
      '0\tpf\t11000\t2',
      '0\tbrk\t53000',
      '0\tbrk\t51800',
      '0\tmremap\t12000\t8192\t12000\t4096',
      '0\tmremap\t12000\t4096\t12000\t12288',
      '0\tmremap\t12000\t12288\t20000\t4096',
    ];
    const text = ['faultline-trace 1\tcase\t0\t2\t50000', ...lines, `end\t${lines.length + 1}`];
    const trace = parseTrace(text.join('\n'), 'case.gz');
    const { host, run } = makeBench();
    const gone: string[] = [];
    const memory = new RecordedMemory(host.mm, trace, (address, length) => {
      gone.push(`${address.toString(16)}+${length / PAGE}`);
      return nothing();
    });
    memory.restore();
    run(
      (function* (): Sim<void> {
        for (const event of trace.events) yield* memory.step(event);
      })(),
    );
    expect(gone).toEqual(['52000+1', '13000+1', '12000+3', '20000+1']);
    expect(host.mm.mappings()).toEqual([
      { start: 0x10000, end: 0x12000, prot: 1 },
      { start: 0x20000, end: 0x21000, prot: 3 },
      { start: 0x50000, end: 0x52000, prot: 3 },
    ]);
  });
});
