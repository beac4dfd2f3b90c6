/** Several processes of one host on one adapter: what they share, what they do not, and their end. */
import { describe, expect, it } from 'vitest';
import {
  type Errno,
  type Host,
  type HostProcess,
  type MemoryRegion,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  VerbsError,
} from '../../kernel/index.ts';
import {
  ACCESS_ON_DEMAND,
  EVENT_QP_ACCESS_ERR,
  MS,
  SEND_SIGNALED,
  SIZE_MAX,
  US,
  WC_REM_ACCESS_ERR,
  WC_SUCCESS,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
} from '../../transport/index.ts';
import { ALL_RIGHTS, BASE, HostPair, PAGE } from '../fixtures/host-pair.ts';
import { type Endpoint, endpoint, join, toRts } from '../fixtures/loopback.ts';

const RW = PROT_READ | PROT_WRITE;
const LID_A = 1;
const BYTES = 16 * PAGE;

/** Maps, fills and registers the same addresses in any process. */
function* buffer(end: Endpoint, pattern: number, extra = 0): Sim<MemoryRegion> {
  const { mm, verbs } = end.process;
  yield* mm.mmap(BASE, BYTES, RW);
  yield* mm.fill(BASE, BYTES, pattern);
  return yield* verbs.regMr(end.pd, BASE, BYTES, ALL_RIGHTS | extra);
}

function* write(from: Endpoint, lkey: number, rkey: number, length = BYTES): Sim<number> {
  yield* from.process.verbs.postSend(from.qp, {
    opcode: WR_RDMA_WRITE,
    wrId: 1,
    flags: SEND_SIGNALED,
    sges: [{ address: BASE, length, lkey }],
    remoteAddress: BASE,
    rkey,
  });
  return (yield* from.cq.next()).status;
}

describe('processes of one host', () => {
  it('write to each other through the adapter, at the same addresses of different memory', () => {
    const pair = new HostPair();
    const { a } = pair;
    const other = a.createProcess('other');
    const [first] = a.processes as [HostProcess];
    const done = pair.run(
      (function* (): Sim<void> {
        const from = yield* endpoint(first);
        const to = yield* endpoint(other);
        yield* join(from, to, LID_A);
        const source = yield* buffer(from, 1);
        const target = yield* buffer(to, 2);
        const sent = first.mm.hash(BASE, BYTES);
        expect(other.mm.hash(BASE, BYTES)).not.toBe(sent);
        expect(yield* write(from, source.lkey, target.rkey)).toBe(WC_SUCCESS);
        expect(other.mm.hash(BASE, BYTES)).toBe(sent);
        expect(first.mm.hash(BASE, BYTES)).toBe(sent);
      })(),
    );
    expect(done).toBe(true);
    pair.checkLeaks();
    const report = a.report();
    const hashes = report.messages.map(({ side, bytes, hash }) => [side, bytes, hash]);
    expect(hashes).toEqual([
      ['target', BYTES, hashes[1]?.[2]],
      ['initiator', BYTES, hashes[1]?.[2]],
    ]);
    expect(report.regions.map(({ process, pd }) => [process, pd])).toEqual([
      ['a', 1],
      ['other', 2],
    ]);
    expect(report.processes.map(({ name, residentBytes }) => [name, residentBytes])).toEqual([
      ['a', BYTES],
      ['other', BYTES],
    ]);
    expect(report.pinnedBytesPeak).toBe(2 * BYTES);
  });

  it('have their page faults served from their own memory', () => {
    const pair = new HostPair();
    const { a } = pair;
    const other = a.createProcess('other');
    const [first] = a.processes as [HostProcess];
    const done = pair.run(
      (function* (): Sim<void> {
        const from = yield* endpoint(first);
        const to = yield* endpoint(other);
        yield* join(from, to, LID_A);
        const source = yield* buffer(from, 5, ACCESS_ON_DEMAND);
        const target = yield* buffer(to, 6, ACCESS_ON_DEMAND);
        // Nothing of either is in the adapter, and nothing of the target in memory.
        for (const prot of [PROT_READ, RW]) yield* first.mm.mprotect(BASE, BYTES, prot);
        yield* other.mm.madviseDontneed(BASE, BYTES);
        expect(yield* write(from, source.lkey, target.rkey)).toBe(WC_SUCCESS);
        expect(other.mm.hash(BASE, BYTES)).toBe(first.mm.hash(BASE, BYTES));
        expect([source.counters.page_faults, target.counters.page_faults]).toEqual([16, 16]);
      })(),
    );
    expect(done).toBe(true);
    pair.checkLeaks();
  });

  it('hear of events about what is theirs, and of no others', () => {
    const pair = new HostPair();
    const { a } = pair;
    const other = a.createProcess('other');
    const [first] = a.processes as [HostProcess];
    const done = pair.run(
      (function* (): Sim<void> {
        const from = yield* endpoint(first);
        const to = yield* endpoint(other);
        yield* join(from, to, LID_A);
        const source = yield* buffer(from, 1);
        yield* buffer(to, 2);
        expect(yield* write(from, source.lkey, 0x7700)).toBe(WC_REM_ACCESS_ERR);
        yield* a.sleep(1 * MS);
        expect(other.verbs.asyncEvents.map(({ event }) => event)).toEqual([EVENT_QP_ACCESS_ERR]);
        expect(first.verbs.asyncEvents).toEqual([]);
      })(),
    );
    expect(done).toBe(true);
    expect(a.report().asyncEvents.length).toBe(1);
  });
});

describe('objects of another process', () => {
  interface Stage {
    readonly mine: Endpoint;
    readonly theirs: Endpoint;
    readonly mr: MemoryRegion;
  }
  const refusals: { what: string; errno: Errno; attempt: (stage: Stage) => Sim<unknown> }[] = [
    {
      what: 'memory in their domain',
      errno: 'EINVAL',
      attempt: ({ mine, theirs }) => mine.process.verbs.regMr(theirs.pd, BASE, PAGE, ALL_RIGHTS),
    },
    {
      what: 'a region moved to their domain',
      errno: 'EINVAL',
      attempt: ({ mine, theirs, mr }) => mine.process.verbs.reregMr(mr, { pd: theirs.pd }),
    },
    {
      what: 'a window of their domain',
      errno: 'EINVAL',
      attempt: ({ mine, theirs }) => mine.process.verbs.allocMw(theirs.pd),
    },
    {
      what: 'a shared receive queue in their domain',
      errno: 'EINVAL',
      attempt: ({ mine, theirs }) => mine.process.verbs.createSrq(theirs.pd, 4),
    },
    {
      what: 'a queue pair in their domain',
      errno: 'EINVAL',
      attempt: ({ mine, theirs }) =>
        mine.process.verbs.createQp(theirs.pd, {
          sendCq: mine.cq,
          recvCq: mine.cq,
          maxSendWr: 1,
          maxRecvWr: 1,
        }),
    },
    {
      what: 'a queue pair that completes into their queue',
      errno: 'EINVAL',
      attempt: ({ mine, theirs }) =>
        mine.process.verbs.createQp(mine.pd, {
          sendCq: mine.cq,
          recvCq: theirs.cq,
          maxSendWr: 1,
          maxRecvWr: 1,
        }),
    },
    {
      what: 'the suspend of their domain',
      errno: 'EINVAL',
      attempt: ({ mine, theirs }) => mine.process.verbs.suspendPd(theirs.pd),
    },
    {
      what: 'the end of their domain',
      errno: 'EINVAL',
      attempt: ({ mine, theirs }) => mine.process.verbs.deallocPd(theirs.pd),
    },
  ];

  it.each(refusals)('are not to be had: $what', ({ errno, attempt }) => {
    const pair = new HostPair();
    const other = pair.a.createProcess('other');
    let thrown: unknown;
    const done = pair.run(
      (function* (): Sim<void> {
        const theirs = yield* endpoint(pair.a.processes[0] as HostProcess);
        const mine = yield* endpoint(other);
        const mr = yield* buffer(mine, 1);
        try {
          yield* attempt({ mine, theirs, mr });
        } catch (error) {
          thrown = error;
        }
      })(),
    );
    expect(done).toBe(true);
    expect(thrown).toBeInstanceOf(VerbsError);
    expect((thrown as VerbsError).errno).toBe(errno);
    expect((thrown as VerbsError).message).toMatch(/not this process'/);
    pair.checkLeaks();
  });
});

describe('the end of a process', () => {
  /** Gives a process one of everything, connected to `peer`. */
  function* settle(process: HostProcess, host: Host, peer: Endpoint): Sim<Endpoint> {
    const { mm, verbs } = process;
    const end = yield* endpoint(process);
    yield* join(end, peer, LID_A);
    // A window older than its region, so that it cannot go in one pass of reverse order.
    yield* verbs.allocMw(end.pd);
    yield* buffer(end, 3);
    const more = BASE + 2 ** 31;
    yield* mm.mmap(more, BYTES, RW);
    yield* mm.fill(more, BYTES, 4);
    yield* verbs.regMr(end.pd, more, BYTES, ALL_RIGHTS | ACCESS_ON_DEMAND);
    const all = yield* verbs.regMr(end.pd, 0, SIZE_MAX, ALL_RIGHTS | ACCESS_ON_DEMAND);
    yield* verbs.createSrq(end.pd, 8);
    // The adapter uses the implicit region, so that it has children.
    yield* verbs.postSend(end.qp, {
      opcode: WR_RDMA_READ,
      wrId: 9,
      flags: SEND_SIGNALED,
      sges: [{ address: more, length: PAGE, lkey: all.lkey }],
      remoteAddress: BASE,
      rkey: (peer.process.verbs.memoryRegions[0] as MemoryRegion).rkey,
    });
    expect((yield* end.cq.next()).status).toBe(WC_SUCCESS);
    for (let i = 0; i < 4; i++) yield* verbs.postRecv(end.qp, { wrId: i });
    yield* host.sleep(1 * MS);
    return end;
  }

  it('leaves nothing in memory or in the adapter, and does the others no harm', () => {
    const pair = new HostPair();
    const { a, b } = pair;
    const [first] = a.processes as [HostProcess];
    const other = a.createProcess('other');
    let pinnedAlone = false;
    const done = pair.run(
      (function* (): Sim<void> {
        const mine = yield* endpoint(first);
        const mr = yield* buffer(mine, 1);
        const free = a.ram.frames.freeCount;
        const end = yield* settle(other, a, mine);
        expect(a.ram.frames.freeCount).toBeLessThan(free);
        const exit = a.spawn('exit', other.exit());
        while (!exit.done.done) {
          yield* a.sleep(1 * US);
          // Memory goes first: what is pinned stays until the device is closed (do_exit).
          if (other.mm.residentBytes === 0 && other.mm.pinnedBytes === BYTES) pinnedAlone = true;
        }
        expect(a.ram.frames.freeCount).toBe(free);
        expect(other.isAlive).toBe(false);
        expect(other.verbs.memoryRegions.map(({ registered }) => registered)).toEqual([
          false,
          false,
          false,
        ]);
        // Its domain is gone from the adapter: whoever names it is refused.
        const refused: string[] = [];
        for (const { verbs } of [first, other]) {
          try {
            yield* verbs.allocMw(end.pd);
          } catch (error) {
            refused.push((error as VerbsError).errno);
          }
        }
        expect(refused).toEqual(['EINVAL', 'ESRCH']);
        // Nobody answers our queue pair any more, and a new one works.
        const next = a.createProcess('next');
        const theirs = yield* endpoint(next);
        const ours = yield* endpoint(first);
        yield* join(ours, theirs, LID_A);
        const source = yield* first.verbs.regMr(ours.pd, BASE, BYTES, ALL_RIGHTS);
        const target = yield* buffer(theirs, 8);
        expect(yield* write(ours, source.lkey, target.rkey)).toBe(WC_SUCCESS);
        yield* first.verbs.deregMr(source);
        yield* next.exit();
        expect(a.ram.frames.freeCount).toBe(free);
        yield* first.verbs.deregMr(mr);
      })(),
    );
    expect(done).toBe(true);
    expect(pinnedAlone).toBe(true);
    expect(b.report().regions).toEqual([]);
    pair.checkLeaks();
  });

  it('of one program and the beginning of another leaves the adapter to the new one', () => {
    const pair = new HostPair();
    const { a } = pair;
    const [first] = a.processes as [HostProcess];
    const other = a.createProcess('other');
    const done = pair.run(
      (function* (): Sim<void> {
        const mine = yield* endpoint(first);
        const mr = yield* buffer(mine, 1);
        const free = a.ram.frames.freeCount;
        yield* settle(other, a, mine);
        yield* other.exec();
        expect(a.ram.frames.freeCount).toBe(free);
        expect(other.verbs.memoryRegions.filter(({ registered }) => registered)).toEqual([]);
        const ours = yield* endpoint(first);
        const theirs = yield* endpoint(other);
        yield* join(ours, theirs, LID_A);
        const source = yield* first.verbs.regMr(ours.pd, BASE, BYTES, ALL_RIGHTS);
        const target = yield* buffer(theirs, 9, ACCESS_ON_DEMAND);
        expect(yield* write(ours, source.lkey, target.rkey)).toBe(WC_SUCCESS);
        expect(other.mm.hash(BASE, BYTES)).toBe(first.mm.hash(BASE, BYTES));
        for (const region of [mr, source]) yield* first.verbs.deregMr(region);
      })(),
    );
    expect(done).toBe(true);
    pair.checkLeaks();
  });

  it('leaves memory that a pinned region kept from going offline', () => {
    const pair = new HostPair({ host: { memoryNodes: 2, memoryBytes: 4096 * PAGE } });
    const { a } = pair;
    const other = a.createProcess('other');
    const { hotplug } = a.ram;
    let refused = '';
    const done = pair.run(
      (function* (): Sim<void> {
        other.mm.state.homeNode = 1;
        const end = yield* endpoint(other);
        yield* buffer(end, 1);
        const range = hotplug.rangeOfNode(1);
        try {
          yield* hotplug.offline(range, 10 * MS);
        } catch (error) {
          refused = (error as Error).message;
        }
        yield* other.exit();
        yield* hotplug.offline(range, 10 * MS);
      })(),
    );
    expect(done).toBe(true);
    expect(refused).toMatch(/pinned by memory region 1 of other/);
  });

  it('may come while its peers still write to it, at any moment', () => {
    for (let leadUs = 0; leadUs <= 400; leadUs += 40) {
      const pair = new HostPair();
      const { a } = pair;
      const [first] = a.processes as [HostProcess];
      const other = a.createProcess('other');
      const statuses: number[] = [];
      const done = pair.run(
        (function* (): Sim<void> {
          const from = yield* endpoint(first);
          const to = yield* endpoint(other);
          yield* toRts(to, from.qp.qpn, LID_A);
          yield* toRts(from, to.qp.qpn, LID_A);
          const source = yield* buffer(from, 1);
          const target = yield* buffer(to, 2, leadUs % 80 === 0 ? ACCESS_ON_DEMAND : 0);
          yield* other.mm.madviseDontneed(BASE, BYTES);
          const exit = a.spawn(
            'exit',
            (function* (): Sim<void> {
              yield* a.sleep(leadUs * US);
              yield* other.exit();
            })(),
          );
          for (let status: number = WC_SUCCESS; status === WC_SUCCESS; ) {
            status = yield* write(from, source.lkey, target.rkey);
            statuses.push(status);
          }
          yield exit.done;
        })(),
      );
      expect(done).toBe(true);
      expect(statuses.at(-1)).not.toBe(WC_SUCCESS);
      pair.checkLeaks();
    }
  });

  it('may come while its program takes its own things down, at any moment', () => {
    for (let leadUs = 0; leadUs <= 200; leadUs += 20) {
      const pair = new HostPair();
      const { a } = pair;
      const other = a.createProcess('other');
      const done = pair.run(
        (function* (): Sim<void> {
          const end = yield* endpoint(other);
          yield* other.mm.mmap(BASE, BYTES, PROT_READ | PROT_WRITE);
          const regions: MemoryRegion[] = [];
          for (let i = 0; i < 64; i++) {
            const access = ALL_RIGHTS | (i % 2 === 0 ? ACCESS_ON_DEMAND : 0);
            regions.push(yield* other.verbs.regMr(end.pd, BASE, BYTES, access));
          }
          const program = a.spawn(
            'program',
            (function* (): Sim<void> {
              // From the oldest on, so that the device, which closes from the newest on, comes to meet it.
              for (const region of regions) {
                try {
                  yield* other.verbs.deregMr(region);
                } catch (error) {
                  expect(error).toMatchObject({ errno: 'EINVAL' });
                }
              }
            })(),
          );
          yield* a.sleep(leadUs * US);
          yield* other.exit();
          yield program.done;
        })(),
      );
      expect(done).toBe(true);
      pair.checkLeaks();
    }
  });
});
