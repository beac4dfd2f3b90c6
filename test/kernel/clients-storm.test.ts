/**
 * Guests, GRU contexts and attachers over one process whose memory is mapped, unmapped, discarded, forked,
 * swapped and migrated under them.
 *
 * Each of them writes numbers into a byte lane of its own in every page and reads them back: unless the
 * process has discarded the page in between, it must find what it wrote, and so must the process.
 */
import { describe, expect, it } from 'vitest';
import { Gru } from '../../kernel/clients/gru.ts';
import { Kvm } from '../../kernel/clients/kvm.ts';
import { Xpmem } from '../../kernel/clients/xpmem.ts';
import { SystemCallError } from '../../kernel/errno.ts';
import { type AddressSpace, PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import { migratePages } from '../../kernel/mm/migrate/move-pages.ts';
import { RandomStream, US } from '../../transport/index.ts';
import { BASE, makeBench, PAGE } from './bench.ts';

const RW = PROT_READ | PROT_WRITE;
const SPAN = 48;
const CLIENT_STEPS = 120;
const OWNER_STEPS = 80;

/** How somebody reaches byte `offset` of the range. */
interface View {
  read(offset: number): Sim<Uint8Array>;
  write(offset: number, bytes: Uint8Array): Sim<void>;
}

function storm(seed: number): { readonly swapped: number; readonly migrated: number } {
  const bench = makeBench({
    cpus: 4,
    memoryNodes: 2,
    memoryBytes: 1024 * PAGE,
    swapBytes: 4096 * PAGE,
    seed,
  });
  const { host } = bench;
  const { mm } = host;
  const random = new RandomStream(seed, 'test', 'storm');
  /** Times a page has been discarded; counted before and after. */
  const discards = new Int32Array(SPAN);
  const where = `seed ${seed}`;

  const user = function* (lane: number, view: View): Sim<void> {
    const mine = new RandomStream(seed, 'test', `lane ${lane}`);
    const last = new Int32Array(SPAN);
    const since = new Int32Array(SPAN).fill(-1);
    for (let step = 1; step <= CLIENT_STEPS; step++) {
      const page = mine.below(SPAN);
      const offset = page * PAGE + lane;
      const before = discards[page];
      try {
        if (mine.chance(500_000)) {
          yield* view.write(offset, Uint8Array.of(step));
          last[page] = step;
          since[page] = before === discards[page] ? before : -1;
        } else {
          const [byte] = yield* view.read(offset);
          const isKnown = since[page] === before && before === discards[page];
          if (isKnown) expect(byte, `${where}, lane ${lane}, page ${page}`).toBe(last[page]);
        }
      } catch (error) {
        if (!(error instanceof SystemCallError) || error.errno !== 'EFAULT') throw error;
      }
      yield* host.sleep(mine.below(40 * US));
    }
    // At rest, everybody sees what the process has.
    yield* host.sleep(0);
  };

  const discard = function* (page: number, count: number, body: Sim<unknown>): Sim<void> {
    for (let p = page; p < page + count; p++) discards[p]++;
    yield* body;
    for (let p = page; p < page + count; p++) discards[p]++;
  };

  const child = function* (memory: AddressSpace): Sim<void> {
    const before = memory.hash(BASE, SPAN * PAGE);
    yield* host.sleep(random.below(300 * US));
    expect(memory.hash(BASE, SPAN * PAGE), `${where}, child`).toBe(before);
    yield* memory.exit();
  };

  const owner = function* (): Sim<void> {
    const pressing = host.createProcess('pressing').mm;
    yield* pressing.mmap(BASE, 1200 * PAGE, RW);
    let node = 0;
    for (let step = 0; step < OWNER_STEPS; step++) {
      const page = random.below(SPAN);
      const count = 1 + random.below(Math.min(16, SPAN - page));
      const at = BASE + page * PAGE;
      switch (random.below(9)) {
        case 0:
          yield* discard(page, count, mm.mmap(at, count * PAGE, RW));
          break;
        case 1:
          yield* discard(page, count, mm.munmap(at, count * PAGE));
          yield* mm.mmap(at, count * PAGE, RW);
          break;
        case 2:
          yield* discard(page, count, mm.madviseDontneed(at, count * PAGE));
          break;
        case 3:
          yield* mm.mprotect(at, count * PAGE, PROT_READ);
          yield* host.sleep(random.below(50 * US));
          yield* mm.mprotect(at, count * PAGE, RW);
          break;
        case 4: {
          const memory = yield* mm.fork(`child ${step}`);
          host.spawn('child', child(memory));
          break;
        }
        case 5:
          node = 1 - node;
          yield* migratePages(mm.state, 1 - node, node);
          break;
        case 6:
          yield* pressing.touch(BASE + random.below(3) * 400 * PAGE, 400, true);
          break;
        default:
          yield* mm.touch(at, count, random.chance(500_000));
      }
      yield* host.sleep(random.below(80 * US));
    }
    yield* pressing.exit();
  };

  const ended = bench.run(
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, SPAN * PAGE, RW);
      const kvm = yield* Kvm.create(mm, { batchPages: 1 + random.below(8) });
      kvm.addSlot({ firstGfn: 7, pageCount: SPAN, address: BASE });
      const guest = new Map(Array.from({ length: SPAN }, (_, i): [number, number] => [i, i + 7]));
      const gru = yield* Gru.open(mm, { tlbEntries: 16 });
      const xpmem = yield* Xpmem.load(host.ram);
      const apid = xpmem.get(yield* xpmem.make(mm, BASE, SPAN * PAGE), true);
      const views: View[] = [];
      for (let i = 0; i < 2; i++) {
        const vcpu = kvm.createVcpu(guest);
        const context = gru.createContext();
        const attachment = xpmem.attach(apid, 0, SPAN * PAGE);
        views.push(
          { read: (offset) => vcpu.read(offset, 1), write: (offset, b) => vcpu.write(offset, b) },
          {
            read: (offset) => context.read(BASE + offset, 1),
            write: (offset, b) => context.write(BASE + offset, b),
          },
          {
            read: (offset) => attachment.read(offset, 1),
            write: (offset, b) => attachment.write(offset, b),
          },
        );
      }
      const threads = [host.spawn('owner', owner())];
      for (const [lane, view] of views.entries()) {
        threads.push(host.spawn(`lane ${lane}`, user(lane, view)));
      }
      for (const thread of threads) yield thread.done;
      yield* host.sleep(1000 * US);
      for (let page = 0; page < SPAN; page++) {
        for (const [lane, view] of views.entries()) {
          const [seen] = yield* view.read(page * PAGE + lane);
          const [own] = mm.read(BASE + page * PAGE + lane, 1);
          expect(seen, `${where}, lane ${lane}, page ${page} at the end`).toBe(own);
        }
      }
      host.checkLeaks();
      yield* xpmem.unload();
      yield* kvm.destroy();
      yield* gru.close();
      expect(mm.notifiers.references.count).toBe(0);
    })(),
  );
  expect(ended, where).toBe(true);
  host.checkLeaks();
  host.dispose();
  expect(bench.pool.blocks.blocksInUse).toBe(0);
  const { pswpout, pgmigrate_success } = host.ram.counters;
  return { swapped: pswpout, migrated: pgmigrate_success };
}

describe('guests, GRUs and attachers under a storm', () => {
  it('see the memory of the process, lose no write and leave nothing behind', () => {
    const first = Number(process.env.SEED ?? 1);
    const count = Number(process.env.SEEDS ?? 4);
    let [swapped, migrated] = [0, 0];
    for (let seed = first; seed < first + count; seed++) {
      const result = storm(seed);
      swapped += result.swapped;
      migrated += result.migrated;
    }
    expect(swapped).toBeGreaterThan(0);
    expect(migrated).toBeGreaterThan(0);
  }, 3_600_000);
});
