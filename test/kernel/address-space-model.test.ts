/**
 * Random system calls of several processes against an independent model of what they see, on so little
 * memory that reclaim is always at work. CASES=5000 for more of them.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SystemCallError } from '../../kernel/errno.ts';
import type { Sim } from '../../kernel/index.ts';
import type { AddressSpace } from '../../kernel/mm/address-space.ts';
import {
  MADV_DOFORK,
  MADV_DONTFORK,
  MADV_DONTNEED,
  MADV_FREE,
  MADV_REMOVE,
  MADV_WILLNEED,
} from '../../kernel/mm/calls/advice.ts';
import { MAP_POPULATE, MAP_SHARED } from '../../kernel/mm/calls/mapping-calls.ts';
import type { MappedFile } from '../../kernel/mm/files/mapped-file.ts';
import { patternByte } from '../../kernel/mm/physical/pattern.ts';
import { PTE_PRESENT, PTE_WRITE } from '../../kernel/mm/virtual/page-table.ts';
import { SignalError } from '../../kernel/signal.ts';
import { BASE, type Bench, makeBench, PAGE } from './bench.ts';
import { type ModelPage, ModelProcess, READ, SHOWN, SharedObject, WRITE } from './memory-model.ts';

const CASES = Number(process.env.CASES ?? 150);
const SPAN = 24;
const FILE_PAGES = 10;
const MEMLOCK_PAGES = 3;
const NAMES = [
  'anonymous',
  'sharedMemory',
  'privateFile',
  'sharedFile',
  'munmap',
  'mprotect',
  'mremap',
  'dontneed',
  'free',
  'remove',
  'willneed',
  'dontfork',
  'dofork',
  'mlock',
  'munlock',
  'fork',
  'exit',
  'exec',
  'write',
  'write',
  'fill',
  'touch',
  'touchWrite',
  'truncate',
  'sync',
  'remapFile',
  'pin',
  'unpin',
  'look',
  'shrink',
  'compact',
] as const;

interface Call {
  readonly name: (typeof NAMES)[number];
  readonly who: number;
  readonly page: number;
  readonly count: number;
  readonly other: number;
  readonly prot: number;
  readonly seed: number;
}

const call: fc.Arbitrary<Call> = fc.record({
  name: fc.constantFrom(...NAMES),
  who: fc.nat(3),
  page: fc.nat(SPAN - 1),
  count: fc.integer({ min: 1, max: 8 }),
  other: fc.nat(SPAN - 1),
  prot: fc.constantFrom(3, 3, 3, 1, 0),
  seed: fc.integer({ min: 1, max: 0xffff }),
});

/** Something is there from the start: anonymous memory, and the file. */
const START: readonly Call[] = [
  { name: 'anonymous', who: 0, page: 0, count: 16, other: 0, prot: 3, seed: 1 },
  { name: 'fill', who: 0, page: 0, count: 16, other: 0, prot: 3, seed: 2 },
  { name: 'sharedFile', who: 0, page: 16, count: 8, other: 0, prot: 3, seed: 3 },
  { name: 'touchWrite', who: 0, page: 16, count: 8, other: 0, prot: 3, seed: 4 },
  { name: 'fork', who: 0, page: 0, count: 1, other: 0, prot: 3, seed: 4 },
];

/** A hole is punched into pages that read-ahead is bringing in, and that are in memory only in part. */
const REMOVE_DURING_READ: readonly Call[] = [
  { name: 'shrink', who: 0, page: 0, count: 1, other: 0, prot: 3, seed: 1 },
  { name: 'willneed', who: 0, page: 9, count: 8, other: 0, prot: 3, seed: 1 },
  { name: 'remove', who: 0, page: 16, count: 3, other: 0, prot: 3, seed: 1 },
  { name: 'anonymous', who: 0, page: 0, count: 1, other: 0, prot: 3, seed: 1 },
];

/** A pin outlives the page of the process: afterwards adapter and process have different ones. */
const WRITE_AFTER_DONTNEED: readonly Call[] = [
  { name: 'pin', who: 3, page: 0, count: 1, other: 0, prot: 3, seed: 1 },
  { name: 'dontneed', who: 3, page: 0, count: 1, other: 0, prot: 3, seed: 1 },
  { name: 'fill', who: 1, page: 0, count: 1, other: 0, prot: 3, seed: 1 },
];

interface Pin {
  readonly process: Process;
  readonly page: number;
  readonly frame: number;
  readonly entry: ModelPage;
}

interface Process {
  readonly mm: AddressSpace;
  readonly model: ModelProcess;
}

class World {
  readonly processes: Process[];
  readonly file: MappedFile;
  readonly fileModel: SharedObject;
  pins: Pin[] = [];
  /** Pins whose page the process has given away since: the adapter keeps the old one. */
  private readonly stale = new Set<Pin>();

  constructor(readonly bench: Bench) {
    const { mm } = bench.host;
    this.file = mm.memory.files.open('/data');
    this.file.length = FILE_PAGES * PAGE;
    this.fileModel = new SharedObject(this.file.id, FILE_PAGES);
    this.processes = [{ mm, model: new ModelProcess() }];
  }

  /** Carries a call out in both, and compares the outcome. */
  *step(c: Call): Sim<void> {
    const process = this.processes[c.who % this.processes.length] as Process;
    const expected = this.expect(process, c);
    const outcome = yield* outcomeOf(this.run(process, c));
    expect(`${c.name} ${outcome}`).toBe(`${c.name} ${expected.outcome}`);
    yield* expected.after();
  }

  /** What is to come of a call, and what it does to the model. */
  private expect(process: Process, c: Call): { outcome: string; after: () => Sim<void> } {
    const { model } = process;
    const { page, count, prot } = c;
    const nothing = () => quietly(() => {});
    const does = (action: () => void, outcome = 'ok') => ({
      outcome,
      after: () => quietly(action),
    });
    const whole = model.isWhole(page, count) ? 'ok' : 'ENOMEM';
    const pages = model.mapped(page, count);
    const locks = (more: number): boolean => {
      let locked = more;
      for (const entry of model.pages.values()) if (entry.locked) locked++;
      return locked <= MEMLOCK_PAGES;
    };
    const fresh = { prot, locked: false, dontFork: false, object: undefined, index: 0 };
    const writable = (prot & WRITE) !== 0;
    switch (c.name) {
      case 'anonymous':
        return does(() => model.map(page, count, { ...fresh, shared: false, accounted: writable }));
      case 'sharedMemory': {
        const object = new SharedObject(undefined, Number.POSITIVE_INFINITY);
        return does(() => {
          model.map(page, count, { ...fresh, shared: true, accounted: true, object });
        });
      }
      case 'privateFile':
      case 'sharedFile': {
        const shared = c.name === 'sharedFile';
        const index = c.other % FILE_PAGES;
        const object = this.fileModel;
        const accounted = writable && !shared;
        return does(() => model.map(page, count, { ...fresh, shared, accounted, object, index }));
      }
      case 'munmap':
        return does(() => model.unmap(page, count));
      case 'mprotect':
        return does(() => {
          for (let at = page; at < page + count; at++) {
            const entry = model.pages.get(at);
            if (!entry) return;
            if (entry.prot !== prot && writable && !entry.shared) entry.accounted = true;
            entry.prot = prot;
          }
        }, whole);
      case 'mremap': {
        const to = c.other;
        const newCount = 1 + (c.seed % 8);
        if (to !== page && to < page + count && page < to + newCount)
          return does(() => {}, 'EINVAL');
        if (!model.isOneMapping(page, count)) return does(() => {}, 'EFAULT');
        const first = model.pages.get(page) as ModelPage;
        const grown = newCount - count;
        if (first.locked && grown > 0 && !locks(grown)) return does(() => {}, 'EAGAIN');
        return does(() => {
          const moved = pages.slice(0, newCount);
          model.unmap(page, count);
          model.map(to, newCount, { ...first });
          for (const [i, entry] of moved.entries()) model.pages.set(to + i, entry);
          this.forgetPins((pin) => pin.process === process);
        });
      }
      case 'dontneed':
      case 'free':
      case 'remove':
      case 'willneed': {
        const suits = (entry: ModelPage): boolean => {
          if (c.name === 'willneed') return true;
          if (entry.locked) return false;
          if (c.name === 'free') return !entry.object && !entry.shared;
          if (c.name === 'remove') {
            return entry.object !== undefined && entry.shared && (entry.prot & WRITE) !== 0;
          }
          return true;
        };
        const bad = pages.findIndex((entry) => !suits(entry));
        const touched = bad < 0 ? pages : pages.slice(0, bad);
        return does(
          () => {
            for (const entry of touched) {
              if (c.name === 'dontneed') this.empty(model, entry);
              else if (c.name === 'free' && entry.own) {
                const isPinned = this.pins.some((pin) => pin.entry === entry);
                entry.own.push(new Uint8Array(SHOWN));
                entry.lazy = !isPinned;
              } else if (c.name === 'remove') {
                entry.object?.punch(entry.index, entry.index + 1);
                this.dropPrivate(entry.object as SharedObject, entry.index, entry.index + 1);
              }
            }
          },
          bad < 0 ? whole : 'EINVAL',
        );
      }
      case 'dontfork':
      case 'dofork':
        return does(() => {
          for (const entry of pages) entry.dontFork = c.name === 'dontfork';
        }, whole);
      case 'mlock': {
        if (!locks(pages.filter((entry) => !entry.locked).length)) return does(() => {}, 'ENOMEM');
        return does(() => {
          for (const entry of pages) entry.locked = true;
        }, whole);
      }
      case 'munlock':
        return does(() => {
          for (const entry of pages) entry.locked = false;
        }, whole);
      case 'write':
      case 'touchWrite':
      case 'fill':
      case 'touch': {
        const isWrite = c.name !== 'touch';
        const single = c.name === 'write' ? 1 : count;
        let reached = 0;
        let signal: string | undefined;
        while (reached < single && signal === undefined) {
          signal = model.signal(page + reached, isWrite);
          if (signal === undefined) reached++;
        }
        return does(() => {
          for (let i = 0; i < reached; i++) {
            if (!isWrite) (model.pages.get(page + i) as ModelPage).touched = true;
            else model.write(page + i, (bytes) => change(bytes, c, i));
          }
        }, signal ?? 'ok');
      }
      case 'truncate': {
        const length = c.other % (FILE_PAGES + 1);
        return does(() => {
          if (length < this.fileModel.pageCount) {
            this.fileModel.punch(length, FILE_PAGES);
            this.dropPrivate(this.fileModel, length, Number.POSITIVE_INFINITY);
          }
          this.fileModel.pageCount = length;
        });
      }
      case 'remapFile': {
        const fits = model.isOneMapping(page, count);
        const first = model.pages.get(page);
        if (!fits || !first?.shared) return does(() => {}, 'EINVAL');
        return does(() => {
          const index = c.other % FILE_PAGES;
          if (index === first.index) return;
          const { object } = first;
          model.map(page, count, { ...first, object, index });
        });
      }
      case 'pin': {
        const isPossible = this.pins.length < 2 && model.signal(page, true) === undefined;
        return { outcome: 'ok', after: isPossible ? () => this.pin(process, page) : nothing };
      }
      case 'unpin':
        return does(() => this.unpin());
      default:
        return { outcome: 'ok', after: nothing };
    }
  }

  private *run(process: Process, c: Call): Sim<void> {
    const { mm } = process;
    const at = BASE + c.page * PAGE;
    const length = c.count * PAGE;
    switch (c.name) {
      case 'anonymous':
        yield* mm.mmap(at, length, c.prot, c.seed % 7 === 0 ? MAP_POPULATE : 0);
        return;
      case 'sharedMemory':
        yield* mm.mmap(at, length, c.prot, MAP_SHARED);
        return;
      case 'privateFile':
      case 'sharedFile': {
        const flags = c.name === 'sharedFile' ? MAP_SHARED : 0;
        yield* mm.mmap(at, length, c.prot, flags, this.file, (c.other % FILE_PAGES) * PAGE);
        return;
      }
      case 'munmap':
        return yield* mm.munmap(at, length);
      case 'mprotect':
        return yield* mm.mprotect(at, length, c.prot);
      case 'mremap': {
        const newLength = (1 + (c.seed % 8)) * PAGE;
        return yield* mm.mremap(at, length, BASE + c.other * PAGE, newLength);
      }
      case 'dontneed':
        return yield* mm.madvise(at, length, MADV_DONTNEED);
      case 'free':
        return yield* mm.madvise(at, length, MADV_FREE);
      case 'remove':
        return yield* mm.madvise(at, length, MADV_REMOVE);
      case 'willneed':
        return yield* mm.madvise(at, length, MADV_WILLNEED);
      case 'dontfork':
        return yield* mm.madvise(at, length, MADV_DONTFORK);
      case 'dofork':
        return yield* mm.madvise(at, length, MADV_DOFORK);
      case 'mlock':
        return yield* mm.mlock(at, length);
      case 'munlock':
        return yield* mm.munlock(at, length);
      case 'fork':
        if (this.processes.length < 3) {
          this.processes.push({ mm: yield* mm.fork('child'), model: process.model.fork() });
        }
        return;
      case 'exit':
        if (this.processes.length < 2 || process === this.processes[0]) return;
        this.forgetPins((pin) => pin.process === process);
        yield* mm.exit();
        this.processes.splice(this.processes.indexOf(process), 1);
        return;
      case 'exec':
        if (c.seed % 4 !== 0) return;
        this.forgetPins((pin) => pin.process === process);
        yield* mm.exec();
        process.model.unmap(0, SPAN + 16);
        return;
      case 'write':
        return yield* mm.write(
          at + (c.seed % 8),
          Uint8Array.from([c.seed & 255, 1 + (c.seed >>> 8)]),
        );
      case 'touchWrite':
        return yield* mm.touch(at, c.count, true);
      case 'fill':
        return yield* mm.fill(at, length, c.seed);
      case 'touch':
        return yield* mm.touch(at, c.count, false);
      case 'truncate':
        return yield* mm.memory.files.truncate(this.file, (c.other % (FILE_PAGES + 1)) * PAGE);
      case 'sync':
        return yield* mm.memory.files.sync(this.file);
      case 'remapFile':
        return yield* mm.remapFilePages(at, length, c.other % FILE_PAGES);
      case 'shrink':
        yield* mm.memory.reclaim.shrink(c.count);
        return;
      case 'compact':
        yield* mm.memory.compaction.forAllocation(0);
        return;
      case 'look':
        return this.compare();
    }
  }

  private *pin(process: Process, page: number): Sim<void> {
    const out = new Int32Array(1);
    const pinned = yield* process.mm.pages.pin(BASE / PAGE + page, 1, true, out, 0);
    expect(pinned).toBe(1);
    process.model.write(page, () => {});
    const entry = process.model.pages.get(page) as ModelPage;
    this.pins.push({ process, page, frame: out[0] as number, entry });
  }

  private unpin(): void {
    const pin = this.pins.shift();
    if (pin) pin.process.mm.pages.unpin(Int32Array.of(pin.frame), 1, false);
  }

  private forgetPins(which: (pin: Pin) => boolean): void {
    for (const pin of this.pins.filter(which)) {
      pin.process.mm.pages.unpin(Int32Array.of(pin.frame), 1, false);
    }
    this.pins = this.pins.filter((pin) => !which(pin));
  }

  /** The pages of the mapping go, and with them what pins had of the process. */
  private empty(model: ModelProcess, entry: ModelPage): void {
    model.empty(entry);
    for (const pin of this.pins) if (pin.entry === entry) this.stale.add(pin);
  }

  /** Truncation takes private copies of file pages too. */
  private dropPrivate(object: SharedObject, first: number, end: number): void {
    for (const { model } of this.processes) {
      for (const entry of model.pages.values()) {
        if (entry.object === object && entry.index >= first && entry.index < end)
          this.empty(model, entry);
      }
    }
  }

  /** Contents, rights and presence of every page of every process. */
  compare(): void {
    for (const { mm, model } of this.processes) {
      const { table } = mm.state;
      for (let page = 0; page < SPAN + 8; page++) {
        const at = BASE + page * PAGE;
        const entry = model.pages.get(page);
        expect(mm.isMapped(at, PAGE)).toBe(entry !== undefined);
        const pte = table.get(at / PAGE);
        if (!entry) {
          expect(pte).toBe(0);
          continue;
        }
        const seen = mm.read(at, SHOWN);
        if (!model.observe(page, seen)) {
          throw new Error(`${mm.name} sees [${seen}] in page ${page}: ${JSON.stringify(entry)}`);
        }
        if ((pte & PTE_PRESENT) !== 0 && (pte & PTE_WRITE) !== 0)
          expect(entry.prot & WRITE).toBe(WRITE);
        const readable = (entry.prot & READ) !== 0 && model.signal(page, false) === undefined;
        if (entry.locked && readable && entry.touched) expect(pte & PTE_PRESENT).toBe(PTE_PRESENT);
      }
    }
    for (const pin of this.pins) {
      const { process, page, frame, entry } = pin;
      // As long as the process has the page, the adapter has the same one.
      if (process.model.pages.get(page) !== entry || !entry.touched) continue;
      if (this.stale.has(pin)) continue;
      const { blocks } = process.mm.memory.frames.content;
      const block = process.mm.memory.frames.content.sample(frame);
      const bytes = blocks.bytes.slice(block * PAGE, block * PAGE + SHOWN);
      blocks.release(block);
      expect([...bytes]).toEqual([...process.mm.read(BASE + page * PAGE, SHOWN)]);
    }
  }
}

// biome-ignore lint/correctness/useYield: a computation that takes no time
function* quietly(action: () => void): Sim<void> {
  action();
}

function change(bytes: Uint8Array, c: Call, i: number): void {
  if (c.name === 'write') {
    bytes[c.seed % 8] = c.seed & 255;
    bytes[(c.seed % 8) + 1] = 1 + (c.seed >>> 8);
  } else if (c.name === 'fill') {
    for (let at = 0; at < SHOWN; at++) bytes[at] = patternByte(c.seed, i * PAGE + at);
  }
}

function* outcomeOf(body: Sim<void>): Sim<string> {
  try {
    yield* body;
    return 'ok';
  } catch (error) {
    if (error instanceof SystemCallError) return error.errno;
    if (error instanceof SignalError) return error.signal;
    throw error;
  }
}

describe('processes under random system calls', () => {
  it('see what an independent model says, whatever is in memory, in swap or in files', () => {
    let swappedOut = 0;
    let majorFaults = 0;
    fc.assert(
      fc.property(
        fc.array(call, { minLength: 1, maxLength: 40 }),
        fc.constantFrom(24, 32, 400),
        (calls, frameCount) => {
          const bench = makeBench({
            memoryBytes: frameCount * PAGE,
            memlockBytes: MEMLOCK_PAGES * PAGE,
          });
          const world = new World(bench);
          const done = bench.run(
            (function* (): Sim<void> {
              for (const c of [...START, ...calls]) yield* world.step(c);
              yield* bench.host.sleep(1_000_000_000);
              world.compare();
              while (world.pins.length > 0) {
                const pin = world.pins.pop() as Pin;
                pin.process.mm.pages.unpin(Int32Array.of(pin.frame), 1, false);
              }
            })(),
          );
          expect(done).toBe(true);
          const { counters } = bench.host.ram;
          swappedOut += counters.pswpout;
          majorFaults += counters.pgmajfault;
          bench.host.checkLeaks();
          bench.host.dispose();
          expect(bench.pool.blocks.blocksInUse).toBe(0);
        },
      ),
      {
        numRuns: CASES,
        examples: [
          [[...REMOVE_DURING_READ], 32],
          [[...WRITE_AFTER_DONTNEED], 24],
        ],
      },
    );
    // The cases were worth something: pages went to swap and came back, and were copied.
    expect(swappedOut).toBeGreaterThan(CASES);
    expect(majorFaults).toBeGreaterThan(CASES / 10);
  }, 3_600_000);
});
