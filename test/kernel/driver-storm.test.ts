/**
 * Processes of one host, and one of another, move bytes to and fro over their adapters, each with its
 * memory registered in its own way, while all of them map, unmap, drop and protect memory around it.
 *
 * What is checked does not come from the code under test: every message's bytes at both ends, the
 * rights of who reads what, page frames that nobody is left holding, and that it happens the same twice.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Host,
  type HostProcess,
  type MemoryRegion,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  wait,
} from '../../kernel/index.ts';
import {
  ACCESS_ON_DEMAND,
  ADVICE_PREFETCH,
  MS,
  RandomStream,
  SEND_SIGNALED,
  SIZE_MAX,
  US,
  WC_SUCCESS,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_SEND,
} from '../../transport/index.ts';
import { ALL_RIGHTS, BASE, HostPair, PAGE } from '../fixtures/host-pair.ts';
import { type Endpoint, endpoint, toRts } from '../fixtures/loopback.ts';

const RW = PROT_READ | PROT_WRITE;
const SLOTS = 12;
const WORKERS = 2;
const MOST_PARTIES = 4;
/** Behind the slots: one for each worker of the other host, which cannot ask whether a slot is free. */
const INBOXES = WORKERS * MOST_PARTIES;
const SLOT_PAGES = 4;
const SLOT_BYTES = SLOT_PAGES * PAGE;
const ARENA_BYTES = (SLOTS + INBOXES) * SLOT_BYTES;
/** Half of the slots lie in one GiB, half in the next. */
const ARENA = Math.ceil(BASE / 2 ** 30) * 2 ** 30 - (SLOTS / 2) * SLOT_BYTES;
const LIDS = { a: 1, b: 2 } as const;
const OPCODES = [WR_RDMA_WRITE, WR_RDMA_READ, WR_SEND] as const;
/** Both hosts begin a part at the same time, long after the part before must have ended. */
const CONNECT_PS = 5 * MS;
const WORK_PS = 10 * MS;
const EXIT_PS = 5_000 * MS;

type Kind = 'pinned' | 'odp' | 'implicit';

/** One process of the storm. What is here is touched by threads of its own host alone. */
interface Party {
  readonly process: HostProcess;
  readonly host: Host;
  readonly lid: number;
  readonly kind: Kind;
  /** A connection for each worker with each party, itself included. */
  readonly ends: Endpoint[];
  readonly random: RandomStream;
  readonly busy: Set<number>;
  /** Completions that were polled by another thread than the one that waits for them. */
  readonly arrived: Map<string, number>;
  pd: number;
  /** What covers all slots; with pinned memory each message has its own, and the inboxes one. */
  all: MemoryRegion | undefined;
  inbox: MemoryRegion | undefined;
  running: number;
  transfers: number;
}

const slotAt = (slot: number): number => ARENA + slot * SLOT_BYTES;

class Storm {
  readonly pair: HostPair;
  readonly parties: Party[] = [];

  constructor(seed: number, kinds: readonly Kind[], frames: number) {
    const config = { memoryBytes: frames * PAGE, swapBytes: 2048 * PAGE, cpus: 3 };
    this.pair = new HostPair({ host: config, seed });
    const { a, b } = this.pair;
    for (const [i, kind] of kinds.entries()) {
      const isLast = i === kinds.length - 1;
      const host = isLast ? b : a;
      const process = i === 0 || isLast ? host.processes[0] : host.createProcess(`p${i}`);
      this.parties.push({
        process: process as HostProcess,
        host,
        lid: isLast ? LIDS.b : LIDS.a,
        kind,
        ends: [],
        random: new RandomStream(seed, 'test', `party ${i}`),
        busy: new Set(),
        arrived: new Map(),
        pd: 0,
        all: undefined,
        inbox: undefined,
        running: 0,
        transfers: 0,
      });
    }
  }

  /** Everything of one host. */
  *main(host: Host, transfers: number): Sim<void> {
    const mine = this.parties.filter((party) => party.host === host);
    for (const party of mine) yield* this.settle(party);
    yield* until(host, CONNECT_PS);
    for (const party of mine) yield* this.connect(party);
    yield* until(host, WORK_PS);
    const threads = mine.flatMap((party) => {
      party.running = WORKERS;
      const workers = Array.from({ length: WORKERS }, (_, worker) =>
        host.spawn('worker', this.work(party, worker, transfers)),
      );
      return [...workers, host.spawn('churn', this.churn(party))];
    });
    for (const { done } of threads) yield* wait(done);
    expect(host.node.now).toBeLessThan(EXIT_PS);
    yield* until(host, EXIT_PS);
    for (const { process } of mine) yield* process.exit();
  }

  private *settle(party: Party): Sim<void> {
    const { mm, verbs } = party.process;
    const ends = this.parties.length * WORKERS;
    party.pd = yield* verbs.allocPd();
    for (let i = 0; i < ends; i++) party.ends.push(yield* endpoint(party.process, party.pd));
    yield* mm.mmap(ARENA, ARENA_BYTES, RW);
    if (party.kind === 'pinned') {
      const inboxes = [slotAt(SLOTS), INBOXES * SLOT_BYTES] as const;
      party.inbox = yield* verbs.regMr(party.pd, ...inboxes, ALL_RIGHTS);
      return;
    }
    const range =
      party.kind === 'implicit' ? ([0, SIZE_MAX] as const) : ([ARENA, ARENA_BYTES] as const);
    party.all = yield* verbs.regMr(party.pd, ...range, ALL_RIGHTS | ACCESS_ON_DEMAND);
    party.inbox = party.all;
  }

  private *connect(party: Party): Sim<void> {
    const i = this.parties.indexOf(party);
    for (const [j, peer] of this.parties.entries()) {
      for (let worker = 0; worker < WORKERS; worker++) {
        const there = peer.ends[i * WORKERS + worker] as Endpoint;
        yield* toRts(party.ends[j * WORKERS + worker] as Endpoint, there.qp.qpn, peer.lid);
      }
    }
  }

  /** Moves messages between slots of `party` and of others of its host, or inboxes of the other host. */
  private *work(party: Party, worker: number, transfers: number): Sim<void> {
    const { parties } = this;
    for (let i = 0; i < transfers; i++) {
      const peer = parties[party.random.below(parties.length)] as Party;
      const from = yield* take(party);
      if (peer.host === party.host) {
        const to = yield* take(peer);
        yield* this.transfer(party, worker, from, peer, to);
        peer.busy.delete(to);
      } else yield* this.transferAway(party, worker, from, peer);
      party.busy.delete(from);
      party.transfers++;
      yield* party.host.sleep(party.random.below(40 * US));
    }
    party.running--;
  }

  /** To or from another process of this host; the one thread speaks for both programs. */
  private *transfer(
    party: Party,
    worker: number,
    from: number,
    peer: Party,
    to: number,
  ): Sim<void> {
    const opcode = OPCODES[party.random.below(OPCODES.length)] as number;
    const length = 1 + party.random.below(SLOT_BYTES);
    const [local, remote] = [slotAt(from), slotAt(to)];
    yield* refresh(party, from);
    yield* refresh(peer, to);
    const source = yield* register(party, local);
    const target = yield* register(peer, remote);
    const end = party.ends[this.parties.indexOf(peer) * WORKERS + worker] as Endpoint;
    const back = peer.ends[this.parties.indexOf(party) * WORKERS + worker] as Endpoint;
    if (opcode === WR_SEND) {
      const sges = [{ address: remote, length, lkey: target.lkey }];
      yield* peer.process.verbs.postRecv(back.qp, { wrId: to, sges });
    }
    expect(yield* post(party, end, opcode, from, length, source, remote, target.rkey)).toBe(0);
    if (opcode === WR_SEND) expect(yield* completionOf(peer, back, to)).toBe(WC_SUCCESS);
    expect(peer.process.mm.hash(remote, length)).toBe(party.process.mm.hash(local, length));
    yield* release(party, source);
    yield* release(peer, target);
  }

  /** To or from this worker's inbox on the other host; the logs of both hosts say whether it was right. */
  private *transferAway(party: Party, worker: number, from: number, peer: Party): Sim<void> {
    const opcode = OPCODES[party.random.below(2)] as number;
    const length = 1 + party.random.below(SLOT_BYTES);
    const i = this.parties.indexOf(party);
    const j = this.parties.indexOf(peer);
    yield* refresh(party, from);
    const source = yield* register(party, slotAt(from));
    const end = party.ends[j * WORKERS + worker] as Endpoint;
    const remote = slotAt(SLOTS + i * WORKERS + worker);
    const { rkey } = peer.inbox as MemoryRegion;
    expect(yield* post(party, end, opcode, from, length, source, remote, rkey)).toBe(WC_SUCCESS);
    yield* release(party, source);
  }

  /** Changes memory that no message uses, and takes what messages use from the adapter. */
  private *churn(party: Party): Sim<void> {
    const { random } = party;
    const { mm, verbs } = party.process;
    while (party.running > 0) {
      const slot = yield* take(party);
      const at = slotAt(slot);
      switch (random.below(6)) {
        case 0:
          yield* mm.munmap(at, SLOT_BYTES);
          break;
        case 1:
          yield* mm.munmap(at, SLOT_BYTES);
          yield* mm.mmap(at, SLOT_BYTES, RW);
          break;
        case 2:
          if (mm.isMapped(at, SLOT_BYTES)) yield* mm.madviseDontneed(at, SLOT_BYTES);
          break;
        case 3:
          if (!mm.isMapped(at, SLOT_BYTES)) break;
          for (const prot of [PROT_READ, RW]) yield* mm.mprotect(at, SLOT_BYTES, prot);
          break;
        case 4: {
          if (party.all === undefined) break;
          const range = { address: at, length: SLOT_BYTES, lkey: party.all.lkey };
          yield* verbs.adviseMr(party.pd, ADVICE_PREFETCH, 0, [range]);
          break;
        }
        default:
          // Also of slots that messages use: what they hold stays, but devices have to look it up again.
          yield* party.host.ram.reclaim.shrink(8 + random.below(32));
      }
      party.busy.delete(slot);
      yield* party.host.sleep(random.below(200 * US));
    }
  }
}

function* until(host: Host, atPs: number): Sim<void> {
  yield* host.sleep(atPs - host.node.now);
}

/** Takes a slot that nobody uses. */
function* take(party: Party): Sim<number> {
  for (;;) {
    const slot = party.random.below(SLOTS);
    if (!party.busy.has(slot)) {
      party.busy.add(slot);
      return slot;
    }
    yield* party.host.sleep(5 * US);
  }
}

/** New bytes into a slot, which may be mapped or not. */
function* refresh({ process, random }: Party, slot: number): Sim<void> {
  const { mm } = process;
  if (!mm.isMapped(slotAt(slot), SLOT_BYTES)) yield* mm.mmap(slotAt(slot), SLOT_BYTES, RW);
  yield* mm.fill(slotAt(slot), SLOT_BYTES, 1 + random.below(1_000_000));
}

function* register(party: Party, address: number): Sim<MemoryRegion> {
  if (party.all) return party.all;
  return yield* party.process.verbs.regMr(party.pd, address, SLOT_BYTES, ALL_RIGHTS);
}

function* release(party: Party, region: MemoryRegion): Sim<void> {
  if (region !== party.all) yield* party.process.verbs.deregMr(region);
}

/** Posts one request from slot `from` and returns how it ended. */
function* post(
  party: Party,
  end: Endpoint,
  opcode: number,
  from: number,
  length: number,
  source: MemoryRegion,
  remoteAddress: number,
  rkey: number,
): Sim<number> {
  yield* party.process.verbs.postSend(end.qp, {
    opcode,
    wrId: from,
    flags: SEND_SIGNALED,
    sges: [{ address: slotAt(from), length, lkey: source.lkey }],
    remoteAddress,
    rkey,
  });
  return yield* completionOf(party, end, from);
}

/** Several threads share a completion queue: each looks for its own work request. */
function* completionOf(party: Party, end: Endpoint, wrId: number): Sim<number> {
  const { arrived, host } = party;
  const key = `${end.qp.qpn}/${wrId}`;
  for (;;) {
    for (let entry = end.cq.poll(); entry; entry = end.cq.poll()) {
      arrived.set(`${entry.qpn}/${entry.wrId}`, entry.status);
    }
    const status = arrived.get(key);
    if (status !== undefined) {
      arrived.delete(key);
      return status;
    }
    yield* host.sleep(20 * US);
  }
}

/** Runs one storm to its end and checks what it leaves. */
function rage(seed: number, kinds: readonly Kind[], frames: number): Storm {
  const storm = new Storm(seed, kinds, frames);
  const { a, b } = storm.pair;
  const free = [a, b].map(({ ram }) => ram.frames.freeCount);
  const done = storm.pair.run(storm.main(a, 8), storm.main(b, 8));
  expect(done, `seed ${seed}: ${[...a.scheduler.unfinished(), ...b.scheduler.unfinished()]}`).toBe(
    true,
  );
  storm.pair.checkLeaks();
  for (const [i, host] of [a, b].entries()) {
    expect(host.ram.frames.freeCount).toBe(free[i]);
    const { dma, faultsFailed } = host.report();
    expect([dma.stale_dma_reads, dma.stale_dma_writes, faultsFailed]).toEqual([0, 0, 0]);
  }
  checkMessages(storm);
  return storm;
}

/** Every message stands in the log of its target too, with the same bytes. */
function checkMessages({ pair: { a, b } }: Storm): void {
  const logs = [a, b].map((host) => host.report().messages);
  const targets = logs.map(
    (log) =>
      new Map(
        log.flatMap(({ side, qpn, message, bytes, hash }) =>
          side === 'target' ? [[`${qpn}/${message}/${bytes}`, hash]] : [],
        ),
      ),
  );
  for (const { side, lid, qpn, message, bytes, hash } of logs.flat()) {
    if (side === 'target') continue;
    expect(targets[lid - 1]?.get(`${qpn}/${message}/${bytes}`)).toBe(hash);
  }
}

describe('several processes on one adapter', () => {
  it('move their bytes whatever happens to memory around them', () => {
    let transfers = 0;
    let faults = 0;
    let invalidations = 0;
    const kind = fc.constantFrom<Kind>('pinned', 'odp', 'implicit');
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2 ** 30 }),
        fc.array(kind, { minLength: 2, maxLength: MOST_PARTIES }),
        fc.constantFrom(192, 1024),
        (seed, kinds, frames) => {
          const storm = rage(seed, kinds, frames);
          for (const party of storm.parties) transfers += party.transfers;
          for (const { counters } of storm.pair.a.report().regions) {
            faults += counters.page_faults_handled;
            invalidations += counters.page_invalidations_handled;
          }
        },
      ),
      { numRuns: 10, seed: 5 },
    );
    expect(transfers).toBeGreaterThan(300);
    expect(faults).toBeGreaterThan(100);
    expect(invalidations).toBeGreaterThan(100);
  });

  it('do the same when they do it again', () => {
    const digests = () => {
      const { pair } = rage(4711, ['implicit', 'odp', 'pinned', 'odp'], 192);
      return [pair.a, pair.b, pair.hcaA, pair.hcaB].map(({ node }) => node.digest.toString());
    };
    expect(digests()).toEqual(digests());
  });
});
