/**
 * Bad input for every system call: which errno, of which call, in which process; and a program that catches
 * it goes on with its memory as it was.
 */
import { describe, expect, it } from 'vitest';
import { SystemCallError } from '../../kernel/errno.ts';
import { type HostConfig, PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import type { AddressSpace } from '../../kernel/mm/address-space.ts';
import {
  MADV_DOFORK,
  MADV_DONTNEED,
  MADV_FREE,
  MADV_HUGEPAGE,
  MADV_REMOVE,
} from '../../kernel/mm/calls/advice.ts';
import { MAP_HUGETLB, MAP_LOCKED, MAP_SHARED } from '../../kernel/mm/calls/mapping-calls.ts';
import { SignalError } from '../../kernel/signal.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
const HUGE = 512 * PAGE;
const LIMIT = 2 ** 47;
/** A place that is a multiple of 2 MiB, with nothing around it. */
const HUGE_AT = BASE + 64 * HUGE;

/** The process has 8 pages at BASE, a hole, 4 pages of a file (shared) from page 16 on, 4 locked from 24 on. */
function* setUp(mm: AddressSpace): Sim<void> {
  yield* mm.mmap(BASE, 8 * PAGE, RW);
  yield* mm.fill(BASE, 8 * PAGE, 77);
  const file = mm.memory.files.open('/f');
  file.length = 4 * PAGE;
  yield* mm.mmap(BASE + 16 * PAGE, 4 * PAGE, RW, MAP_SHARED, file);
  yield* mm.mmap(BASE + 24 * PAGE, 4 * PAGE, RW);
  if (mm.state.limits.memlockBytes > 0) yield* mm.mlock(BASE + 24 * PAGE, 4 * PAGE);
}

type Attempt = (mm: AddressSpace) => Sim<unknown>;
const small = { memlockBytes: 6 * PAGE };
const noLocks = { memlockBytes: 0 };

const attempts: [what: string, errno: string, call: string, Attempt, Partial<HostConfig>?][] = [
  ['an odd address', 'EINVAL', 'mmap', (mm) => mm.mmap(BASE + 1, PAGE, RW)],
  ['length 0', 'EINVAL', 'mmap', (mm) => mm.mmap(BASE, 0, RW)],
  ['a negative length', 'EINVAL', 'mmap', (mm) => mm.mmap(BASE, -PAGE, RW)],
  ['NaN', 'EINVAL', 'mmap', (mm) => mm.mmap(Number.NaN, PAGE, RW)],
  ['the end of the address space', 'EINVAL', 'mmap', (mm) => mm.mmap(LIMIT - PAGE, 2 * PAGE, RW)],
  ['unknown rights', 'EINVAL', 'mmap', (mm) => mm.mmap(BASE, PAGE, 8)],
  [
    'an odd place in a file',
    'EINVAL',
    'mmap',
    (mm) => mm.mmap(BASE, PAGE, RW, 0, mm.memory.files.open('/f'), 100),
  ],
  ['no room for it', 'ENOMEM', 'mmap', (mm) => mm.mmap(0, LIMIT - PAGE, RW)],
  [
    'too many mappings',
    'ENOMEM',
    'mmap',
    (mm) => mm.mmap(HUGE_AT, PAGE, RW),
    { mm: { maxMapCount: 3 } },
  ],
  ['no locks allowed', 'EPERM', 'mmap', (mm) => mm.mmap(HUGE_AT, PAGE, RW, MAP_LOCKED), noLocks],
  ['too much locked', 'EAGAIN', 'mmap', (mm) => mm.mmap(HUGE_AT, 3 * PAGE, RW, MAP_LOCKED), small],
  ['no huge pages', 'ENOMEM', 'mmap', (mm) => mm.mmap(HUGE_AT, HUGE, RW, MAP_HUGETLB)],
  [
    'an odd place for huge pages',
    'EINVAL',
    'mmap',
    (mm) => mm.mmap(BASE + PAGE, HUGE, RW, MAP_HUGETLB),
  ],
  [
    'more than RAM and swap at once',
    'ENOMEM',
    'mmap',
    (mm) => mm.mmap(HUGE_AT, 2000 * PAGE, RW),
    { mm: { overcommit: 'heuristic' } },
  ],
  [
    'more than the commit limit in all',
    'ENOMEM',
    'mmap',
    (mm) => mm.mmap(HUGE_AT, 1150 * PAGE, RW),
    { mm: { overcommit: 'never' } },
  ],
  ['an odd address', 'EINVAL', 'munmap', (mm) => mm.munmap(BASE + 8, PAGE)],
  ['length 0', 'EINVAL', 'munmap', (mm) => mm.munmap(BASE, 0)],
  [
    'one mapping cut into two too many',
    'ENOMEM',
    'munmap',
    (mm) => mm.munmap(BASE + PAGE, PAGE),
    { mm: { maxMapCount: 3 } },
  ],
  ['an odd address', 'EINVAL', 'mremap', (mm) => mm.mremap(BASE + 1, PAGE, BASE, PAGE)],
  ['new length 0', 'EINVAL', 'mremap', (mm) => mm.mremap(BASE, PAGE, BASE, 0)],
  [
    'a place in itself',
    'EINVAL',
    'mremap',
    (mm) => mm.mremap(BASE, 4 * PAGE, BASE + PAGE, 4 * PAGE),
  ],
  [
    'what is not mapped',
    'EFAULT',
    'mremap',
    (mm) => mm.mremap(BASE + 9 * PAGE, PAGE, HUGE_AT, PAGE),
  ],
  ['what is mapped in part', 'EFAULT', 'mremap', (mm) => mm.mremap(BASE, 9 * PAGE, HUGE_AT, PAGE)],
  [
    'a locked mapping that grows',
    'EAGAIN',
    'mremap',
    (mm) => mm.mremap(BASE + 24 * PAGE, 4 * PAGE, HUGE_AT, 8 * PAGE),
    small,
  ],
  ['below the heap', 'ENOMEM', 'brk', (mm) => mm.brk(BASE - PAGE)],
  ['into a mapping', 'ENOMEM', 'brk', (mm) => mm.brk(BASE + 17 * PAGE)],
  ['beyond the address space', 'ENOMEM', 'brk', (mm) => mm.brk(LIMIT + PAGE)],
  ['an odd address', 'EINVAL', 'mprotect', (mm) => mm.mprotect(BASE + 1, PAGE, RW)],
  ['unknown rights', 'EINVAL', 'mprotect', (mm) => mm.mprotect(BASE, PAGE, 16)],
  ['a hole', 'ENOMEM', 'mprotect', (mm) => mm.mprotect(BASE, 10 * PAGE, RW)],
  ['unknown advice', 'EINVAL', 'madvise', (mm) => mm.madvise(BASE, PAGE, 99)],
  ['an odd address', 'EINVAL', 'madvise', (mm) => mm.madvise(BASE + 1, PAGE, MADV_DONTNEED)],
  ['a hole', 'ENOMEM', 'madvise', (mm) => mm.madvise(BASE + 8 * PAGE, 2 * PAGE, MADV_DOFORK)],
  [
    'DONTNEED of locked pages',
    'EINVAL',
    'madvise',
    (mm) => mm.madvise(BASE + 24 * PAGE, PAGE, MADV_DONTNEED),
  ],
  ['FREE of a file', 'EINVAL', 'madvise', (mm) => mm.madvise(BASE + 16 * PAGE, PAGE, MADV_FREE)],
  ['REMOVE of private memory', 'EINVAL', 'madvise', (mm) => mm.madvise(BASE, PAGE, MADV_REMOVE)],
  ['HUGEPAGE of a hole', 'ENOMEM', 'madvise', (mm) => mm.madvise(HUGE_AT, PAGE, MADV_HUGEPAGE)],
  ['a hole', 'ENOMEM', 'mlock', (mm) => mm.mlock(BASE + 8 * PAGE, PAGE)],
  ['the limit', 'ENOMEM', 'mlock', (mm) => mm.mlock(BASE, 3 * PAGE), small],
  ['no locks allowed', 'EPERM', 'mlock', (mm) => mm.mlock(BASE, PAGE), noLocks],
  [
    'the share of memory',
    'ENOMEM',
    'mlock',
    (mm) => mm.mlock(BASE, 8 * PAGE),
    { mm: { mlockShare: 0.04 } },
  ],
  ['a negative address', 'EINVAL', 'mlock', (mm) => mm.mlock(-PAGE, PAGE)],
  ['a hole', 'ENOMEM', 'munlock', (mm) => mm.munlock(BASE + 9 * PAGE, PAGE)],
  ['flags 0', 'EINVAL', 'mlockall', (mm) => mm.mlockall(0)],
  ['unknown flags', 'EINVAL', 'mlockall', (mm) => mm.mlockall(8)],
  ['the limit', 'ENOMEM', 'mlockall', (mm) => mm.mlockall(1), small],
  ['no locks allowed', 'EPERM', 'mlockall', (mm) => mm.mlockall(2), noLocks],
  ['private memory', 'EINVAL', 'remap_file_pages', (mm) => mm.remapFilePages(BASE, PAGE, 0)],
  [
    'a negative page',
    'EINVAL',
    'remap_file_pages',
    (mm) => mm.remapFilePages(BASE + 16 * PAGE, PAGE, -1),
  ],
  [
    'more than the mapping',
    'EINVAL',
    'remap_file_pages',
    (mm) => mm.remapFilePages(BASE + 16 * PAGE, 5 * PAGE, 0),
  ],
  ['what is not mapped', 'EFAULT', 'remap_pfn_range', (mm) => mm.remapPfnRange(HUGE_AT, PAGE, 0)],
  ['an odd address', 'EINVAL', 'remap_pfn_range', (mm) => mm.remapPfnRange(BASE + 1, PAGE, 0)],
  [
    'an odd address',
    'EINVAL',
    'apply_to_page_range',
    (mm) => mm.applyToPageRange(BASE + 1, PAGE, (_page, pte) => pte),
  ],
  [
    'no memory for the copies',
    'ENOMEM',
    'fork',
    (mm) => mm.fork('c'),
    { mm: { forkFailsAfterEntries: 3 } },
  ],
  [
    'more than the commit limit',
    'ENOMEM',
    'fork',
    (mm) => mm.fork('c'),
    { mm: { overcommit: 'never', overcommitRatio: 1 }, swapBytes: 20 * PAGE },
  ],
];

describe('system calls with bad input', () => {
  it.each(attempts)('%s: %s of %s', (_what, errno, call, attempt, changes = {}) => {
    const { host, run } = makeBench(changes);
    const { mm } = host;
    let caught: unknown;
    const done = run(
      (function* (): Sim<void> {
        mm.setBrk(BASE + 10 * PAGE, BASE + 10 * PAGE);
        yield* setUp(mm);
        const before = mm.hash(BASE, 32 * PAGE);
        const areas = mm.mappings().map(({ start, end, prot }) => ({ start, end, prot }));
        try {
          yield* attempt(mm);
        } catch (error) {
          caught = error;
        }
        // The program goes on: nothing has changed, no lock is held, and memory works.
        expect(mm.hash(BASE, 32 * PAGE)).toBe(before);
        expect(mm.mappings().map(({ start, end, prot }) => ({ start, end, prot }))).toEqual(areas);
        yield* mm.fill(BASE, 8 * PAGE, 5);
        yield* mm.munmap(BASE, 8 * PAGE);
      })(),
    );
    expect(caught).toBeInstanceOf(SystemCallError);
    expect(caught).toMatchObject({ errno, call, code: 'E_OPERATION', place: 'a', exitStatus: 1 });
    expect((caught as SystemCallError).expected).not.toBe('');
    expect(done).toBe(true);
    host.checkLeaks();
  });

  it('is refused after the process has ended', () => {
    const { host, run } = makeBench();
    let caught: unknown;
    run(
      (function* (): Sim<void> {
        const child = yield* host.mm.fork('child');
        yield* child.exit();
        yield* child.exit();
        try {
          yield* child.munmap(BASE, PAGE);
        } catch (error) {
          caught = error;
        }
      })(),
    );
    expect(caught).toMatchObject({ errno: 'ESRCH', call: 'munmap', place: 'child' });
  });
});

describe('accesses that memory does not allow', () => {
  const at = BASE + 16 * PAGE;
  const accesses: [what: string, signal: string, address: number, Attempt][] = [
    ['a read of nothing', 'SIGSEGV', BASE + 9 * PAGE, (mm) => mm.touch(BASE + 9 * PAGE, 1, false)],
    [
      'a write to nothing',
      'SIGSEGV',
      BASE + 8 * PAGE,
      (mm) => mm.fill(BASE + 7 * PAGE, 2 * PAGE, 1),
    ],
    ['a write without the right', 'SIGSEGV', BASE, (mm) => mm.write(BASE, new Uint8Array(4))],
    ['a page beyond the end of the file', 'SIGBUS', at + 2 * PAGE, (mm) => mm.touch(at, 4, true)],
  ];

  it.each(accesses)('%s ends in %s', (_what, signal, address, access) => {
    const { host, run } = makeBench();
    const { mm } = host;
    let caught: unknown;
    const done = run(
      (function* (): Sim<void> {
        yield* setUp(mm);
        yield* mm.memory.files.truncate(mm.memory.files.open('/f'), 2 * PAGE);
        if (address === BASE) yield* mm.mprotect(BASE, PAGE, PROT_READ);
        try {
          yield* access(mm);
        } catch (error) {
          caught = error;
        }
        yield* mm.munmap(BASE, 32 * PAGE);
      })(),
    );
    expect(caught).toBeInstanceOf(SignalError);
    expect(caught).toMatchObject({ signal, address, code: 'E_OPERATION', place: 'a' });
    expect(done).toBe(true);
    host.checkLeaks();
  });
});
