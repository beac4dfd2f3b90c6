/**
 * The driver of the fuzzed host: it takes queue pairs of every service through every state, over and
 * over, posts work and receives, serves or refuses page faults, takes pages away, suspends the
 * domain, binds windows, all at random; and it knows which work requests may still complete.
 */
import {
  BUS_PD_RESUME,
  BUS_PD_SUSPEND,
  BUS_RECV_DOORBELL,
  BUS_SRQ_DOORBELL,
  CMD_ALLOC_MW,
  CMD_ALLOC_PD,
  CMD_CREATE_CQ,
  CMD_CREATE_MKEY,
  CMD_CREATE_QP,
  CMD_CREATE_SRQ,
  CMD_DESTROY_QP,
  CMD_QUERY_QP,
  CQE_RECEIVE,
  type FramePool,
  mtuCode,
  QP_STATE,
  QPA_ACCESS_FLAGS,
  QPA_DEST_QPN,
  QPA_DLID,
  QPA_MAX_DEST_RD_ATOMIC,
  QPA_MAX_RD_ATOMIC,
  QPA_MIN_RNR_TIMER,
  QPA_PATH_MTU,
  QPA_PORT,
  QPA_QKEY,
  QPA_RETRY_CNT,
  QPA_RNR_RETRY,
  QPA_RQ_PSN,
  QPA_SQ_PSN,
  QPA_STATE,
  QPA_TIMEOUT,
  QPS_ERR,
  QPS_INIT,
  QPS_RESET,
  QPS_RTR,
  QPS_RTS,
  QPS_SQD,
  QPT_RC,
  QPT_UC,
  QPT_UD,
  type RandomStream,
  SEND_SIGNALED,
  US,
  WC_SUCCESS,
  WR_ATOMIC_CMP_AND_SWP,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_ATOMIC_WRITE,
  WR_BIND_MW,
  WR_FLUSH,
  WR_LOCAL_INV,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
  WR_SEND_WITH_IMM,
  WR_SEND_WITH_INV,
} from '../../transport/index.ts';
import type {
  BareCompletion,
  BareFault,
  BareHost,
  BareSge,
  BareWork,
} from '../fixtures/bare-host.ts';
import { maskFor } from '../fixtures/bare-host.ts';
import {
  addressOf,
  copyOf,
  entry,
  expectSame,
  keyOf,
  PAGE,
  regionList,
  regions,
  window,
} from './fuzz-memory.ts';
import { type Belief, type Target, WINDOWS } from './packet-source.ts';

const FIRST_QPN = 0x11;
const ENTRIES = 32;
export const QKEY = 0x1234;
const SHARED_RECEIVES = 1;

/** One place for a queue pair; it is used by one after another. */
interface Slot extends Belief {
  readonly usesSrq: boolean;
  goal: number;
  /** A command for it is out that may change its state. */
  isBusy: boolean;
  /** Work requests and receives that have not completed, by wr_id. */
  readonly posted: Set<number>;
  /** Something of it has failed: it had better be taken down soon. */
  isDoubtful: boolean;
}

const rcWork = [
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
  WR_SEND_WITH_IMM,
  WR_RDMA_READ,
  WR_ATOMIC_CMP_AND_SWP,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_LOCAL_INV,
  WR_BIND_MW,
  WR_BIND_MW,
  WR_SEND_WITH_INV,
  WR_FLUSH,
  WR_ATOMIC_WRITE,
];

export class FuzzHost {
  readonly slots: Slot[] = [];
  readonly targets: Target[];
  /** Ends the disturbances. */
  isClosing = false;
  private nextWrId = 1;
  private eventsSeen = 0;
  private nextQpn = FIRST_QPN;
  private readonly sharedPosted = new Set<number>();
  private readonly onDone = new Map<number, () => void>();
  private readonly openFaults = new Set<BareFault>();
  private isSuspended = false;

  constructor(
    private readonly host: BareHost,
    private readonly pool: FramePool,
    private readonly chance: RandomStream,
    private readonly mtu: number,
  ) {
    this.targets = [
      ...Object.keys(regions).map((name): Target => {
        const region = regions[name as keyof typeof regions];
        const access = region.pd === 1 ? region.access : 0;
        return {
          rkey: keyOf(name as keyof typeof regions),
          address: region.first * PAGE,
          length: region.count * PAGE,
          access,
        };
      }),
      ...Array.from({ length: WINDOWS }, () => ({
        rkey: 0,
        address: window.from,
        length: window.to - window.from,
        access: 2 | 4 | 8 | 256,
      })),
    ];
    host.onCompletion = (completion) => this.complete(completion);
    host.onDone = (tag) => {
      this.onDone.get(tag)?.();
      this.onDone.delete(tag);
    };
    host.onFault = (fault) => {
      this.openFaults.add(fault);
      this.later(() => this.serve(fault));
    };
  }

  /** Creates everything; queue pairs of the three services, some with a shared receive queue. */
  setUp(): void {
    const { host } = this;
    host.command(CMD_ALLOC_PD);
    host.command(CMD_ALLOC_PD);
    host.command(CMD_CREATE_CQ, [32_768]);
    for (const { first, count, pd, access } of regionList) {
      host.command(CMD_CREATE_MKEY, [pd, access, 7], [first * PAGE, count * PAGE]);
    }
    // Half of the pages are there.
    for (const [i, { first, count }] of regionList.entries()) {
      for (let page = 0; page < count; page++) {
        if (this.chance.below(2) === 0) {
          host.table(((i + 1) << 8) | 7, page, 1, () => entry(first + page));
        }
      }
    }
    host.command(CMD_CREATE_SRQ, [1, 64, 0]);
    for (let i = 0; i < WINDOWS; i++) {
      const tag = host.command(CMD_ALLOC_MW, [1]);
      const target = this.targets[this.targets.length - 1 - i] as Target;
      this.onDone.set(tag, () => {
        target.rkey = host.results.get(tag)?.result ?? 0;
      });
    }
    for (let i = 0; i < 16; i++) this.create(i % 4 === 3);
    for (const slot of this.slots) this.recycle(slot);
    for (let i = 0; i < 20; i++) this.postShared();
  }

  /** Something else happens to the host. */
  tick(): void {
    if (this.isClosing) return;
    for (; this.eventsSeen < this.host.events.length; this.eventsSeen++) {
      const { number } = this.host.events[this.eventsSeen] as { number: number };
      const failed = this.slots.find(({ qpn }) => qpn === number);
      if (failed !== undefined && !failed.isBusy) failed.isDoubtful = true;
    }
    const doubtful = this.slots.find((s) => s.isDoubtful && !s.isBusy);
    if (doubtful !== undefined && this.chance.below(2) === 0) this.recycle(doubtful);
    const slot = this.slots[this.chance.below(this.slots.length)] as Slot;
    const kind = this.chance.below(100);
    if (kind < 5) this.recycle(slot);
    else if (kind < 50) this.postWork(slot);
    else if (kind < 75) this.postReceives(slot);
    else if (kind < 85) this.postShared();
    else if (kind < 93) this.invalidate();
    else if (kind < 96) this.suspend();
    else this.host.command(CMD_QUERY_QP, [slot.qpn]);
  }

  /** Serves what is open and takes every queue pair down. */
  close(): void {
    this.isClosing = true;
    if (this.isSuspended) this.resume();
    for (const fault of this.openFaults) this.host.resumeFault(fault.token, 1);
    this.openFaults.clear();
    for (const slot of this.slots) {
      this.host.modifyQp(slot.qpn, QP_STATE, { [QPA_STATE]: QPS_ERR });
      const tag = this.host.modifyQp(slot.qpn, QP_STATE, { [QPA_STATE]: QPS_RESET });
      this.onDone.set(tag, () => this.expectFlushed(slot));
    }
  }

  private create(usesSrq: boolean): void {
    const type = [QPT_RC, QPT_RC, QPT_RC, QPT_RC, QPT_UC, QPT_UD][this.chance.below(6)] as number;
    const slot: Slot = {
      qpn: 0,
      type,
      expected: 0,
      requested: 0,
      message: undefined,
      usesSrq,
      goal: QPS_RESET,
      isBusy: false,
      posted: new Set(),
      isDoubtful: false,
    };
    this.number(slot, type);
    this.slots.push(slot);
  }

  /** CREATE_QP; numbers are given in order, so they can be foretold. */
  private number(slot: Slot, type: number): void {
    const srqn = slot.usesSrq ? 1 : 0;
    this.host.command(CMD_CREATE_QP, [1, ENTRIES, ENTRIES, 1, 1, type, srqn, 0]);
    slot.qpn = this.nextQpn++;
    slot.type = type;
  }

  /** Takes a queue pair down, in one of several ways, and up again to some state. */
  private recycle(slot: Slot): void {
    if (slot.isBusy) return;
    const { host, chance } = this;
    const to = (state: number): number => host.modifyQp(slot.qpn, QP_STATE, { [QPA_STATE]: state });
    slot.isBusy = true;
    slot.isDoubtful = false;
    const isFlushed = chance.below(2) === 0;
    if (isFlushed) to(QPS_ERR);
    const tag = to(QPS_RESET);
    this.onDone.set(tag, () => {
      if (isFlushed) this.expectFlushed(slot);
      slot.posted.clear();
    });
    if (chance.below(12) === 0) {
      // The old number is nobody's now.
      host.command(CMD_DESTROY_QP, [slot.qpn]);
      this.number(slot, [QPT_RC, QPT_RC, QPT_UC, QPT_UD][chance.below(4)] as number);
    }
    // Those that work do not last; the others stay until chance takes them down.
    const others = [QPS_RESET, QPS_INIT, QPS_ERR, QPS_SQD, QPS_RTR, QPS_RTR, QPS_RTR];
    slot.goal = others[chance.below(40)] ?? QPS_RTS;
    const psn = [0, 0xfffff0, 0x7ffff0, 100][chance.below(4)] as number;
    Object.assign(slot, { expected: psn, requested: psn, message: undefined });
    let last = tag;
    for (const state of this.pathTo(slot.goal)) last = this.modify(slot, state, psn);
    const settled = this.onDone.get(last);
    this.onDone.set(last, () => {
      settled?.();
      slot.isBusy = false;
      if (slot.goal !== QPS_RESET) this.postReceives(slot);
    });
  }

  private pathTo(goal: number): readonly number[] {
    const up = [QPS_INIT, QPS_RTR, QPS_RTS];
    if (goal === QPS_SQD || goal === QPS_ERR) return [...up, goal];
    return up.slice(0, up.indexOf(goal) + 1);
  }

  private modify(slot: Slot, state: number, psn: number): number {
    const { chance } = this;
    const mask = QP_STATE | maskFor(state, slot.type);
    return this.host.modifyQp(slot.qpn, mask, {
      [QPA_STATE]: state,
      [QPA_PORT]: 1,
      [QPA_QKEY]: QKEY,
      [QPA_ACCESS_FLAGS]: chance.below(20) === 0 ? chance.below(16) : 0x30f,
      [QPA_DLID]: 2,
      [QPA_PATH_MTU]: mtuCode(this.mtu),
      [QPA_DEST_QPN]: slot.qpn,
      [QPA_RQ_PSN]: psn,
      [QPA_SQ_PSN]: psn,
      [QPA_MAX_DEST_RD_ATOMIC]: [1, 2, 16][chance.below(3)] as number,
      [QPA_MAX_RD_ATOMIC]: [1, 2, 16][chance.below(3)] as number,
      [QPA_MIN_RNR_TIMER]: 1 + chance.below(4),
      [QPA_TIMEOUT]: 1 + chance.below(4),
      [QPA_RETRY_CNT]: chance.below(3),
      [QPA_RNR_RETRY]: chance.below(8),
    });
  }

  private postReceives(slot: Slot): void {
    if (slot.isBusy || slot.usesSrq || slot.goal === QPS_RESET) return;
    for (let i = 4 + this.chance.below(4); i > 0 && slot.posted.size < ENTRIES; i--) {
      const wrId = this.nextWrId++;
      slot.posted.add(wrId);
      this.host.postBuffer(BUS_RECV_DOORBELL, slot.qpn, wrId, this.localBuffers());
    }
  }

  private postShared(): void {
    for (let i = 0; i < 8 && this.sharedPosted.size < 60; i++) {
      const wrId = this.nextWrId++;
      this.sharedPosted.add(wrId);
      this.host.postBuffer(BUS_SRQ_DOORBELL, SHARED_RECEIVES, wrId, this.localBuffers());
    }
  }

  private localBuffers(): BareSge[] {
    const { chance } = this;
    const room = regions.local.count * PAGE;
    return Array.from({ length: 1 + chance.below(chance.below(3) === 0 ? 4 : 1) }, () => {
      const isRoomy = chance.below(8) > 0;
      const length = isRoomy ? 4 * this.mtu + 40 : chance.below(PAGE);
      const address = addressOf('local') + chance.below(room - length);
      const sge = { address, length, lkey: keyOf('local') };
      // Now and then a bad one: the message that meets it must be refused.
      return chance.below(40) === 0 ? { ...sge, ...this.badBuffer() } : sge;
    });
  }

  /** Where nothing may be put: a region of other rights, or domain, or a byte too far. */
  private badBuffer(): Partial<BareSge> {
    const { chance } = this;
    const length = 1 + chance.below(PAGE);
    const { first, count } = regions.local;
    const beyond = (first + count) * PAGE - length + 1;
    return [
      { address: addressOf('readable'), lkey: keyOf('readable') },
      { address: addressOf('foreign'), lkey: keyOf('foreign') },
      { address: beyond, length },
      { address: addressOf('local') - 1 },
      { lkey: keyOf('local') + 1 },
    ][chance.below(5)] as Partial<BareSge>;
  }

  private postWork(slot: Slot): void {
    const isTaken = slot.goal === QPS_RTS || slot.goal === QPS_SQD || slot.goal === QPS_ERR;
    if (slot.isBusy || !isTaken) return;
    const { chance } = this;
    for (let i = 1 + chance.below(4); i > 0 && slot.posted.size < ENTRIES; i--) {
      const wrId = this.nextWrId++;
      slot.posted.add(wrId);
      this.host.postSend(slot.qpn, { ...this.work(slot), wrId });
    }
  }

  private work(slot: Slot): BareWork {
    const { chance, targets } = this;
    const opcode =
      chance.below(40) === 0
        ? chance.below(16)
        : slot.type === QPT_RC
          ? (rcWork[chance.below(rcWork.length)] as number)
          : slot.type === QPT_UC
            ? chance.below(4)
            : 2 + chance.below(2);
    const target = targets[chance.below(targets.length)] as Target;
    const work: BareWork = {
      opcode,
      rkey: target.rkey,
      remote: target.address + 8 * chance.below(100),
      immediate: chance.below(0x200),
      flags: SEND_SIGNALED | chance.below(8),
    };
    if (slot.type === QPT_UD) work.ud = { qpn: chance.below(64), qkey: QKEY, dlid: 2 };
    if (opcode === WR_BIND_MW) return { ...work, ...this.binding() };
    const isAtomic = opcode === WR_ATOMIC_CMP_AND_SWP || opcode === WR_ATOMIC_FETCH_AND_ADD;
    if (isAtomic) Object.assign(work, { compareAdd: BigInt(chance.next()), swap: 5n });
    if (opcode === WR_LOCAL_INV) return work;
    if (opcode === WR_FLUSH) return { ...work, length: chance.below(PAGE) };
    if (opcode === WR_RDMA_READ || isAtomic) {
      const sges = this.localBuffers();
      return { ...work, sges: isAtomic ? [{ ...(sges[0] as BareSge), length: 8 }] : sges };
    }
    const length = opcode === WR_ATOMIC_WRITE ? 8 : chance.below(2 * this.mtu);
    if (length <= 64 && chance.below(2) === 0) return { ...work, inline: new Uint8Array(length) };
    const address = addressOf('out') + chance.below(PAGE);
    return { ...work, sges: [{ address, length, lkey: keyOf('out') }] };
  }

  /** A window gets its next key and another part of what windows may show. */
  private binding(): Partial<BareWork> {
    const { chance, targets } = this;
    const target = targets[targets.length - 1 - chance.below(WINDOWS)] as Target;
    target.rkey = (target.rkey & ~0xff) | ((target.rkey + 1) & 0xff);
    const length = chance.below(8) === 0 ? 0 : 1 + chance.below(window.to - window.from);
    const address = window.from + chance.below(window.to - window.from - length + 1);
    return {
      rkey: target.rkey,
      lkey: chance.below(20) === 0 ? keyOf('readable') : keyOf('bound'),
      address,
      length,
      immediate: chance.below(4) === 0 ? chance.below(0x400) : 0x10e,
    };
  }

  private invalidate(): void {
    const { chance } = this;
    const index = chance.below(regionList.length);
    const { first, count } = regionList[index] as (typeof regionList)[number];
    const page = chance.below(count);
    const end = page + 1 + chance.below(count - page);
    this.host.table(((index + 1) << 8) | 7, page, end - page, () => 0);
    if (chance.below(2) === 0) {
      this.host.table(((index + 1) << 8) | 7, page, 1, () => entry(first + page));
    }
  }

  private serve(fault: BareFault): void {
    if (!this.openFaults.delete(fault)) return;
    const { chance, host } = this;
    const region = regionList[(fault.mkey >>> 8) - 1];
    if (region === undefined || this.isClosing || chance.below(10) === 0) {
      host.resumeFault(fault.token, 1);
      return;
    }
    const first = Math.floor(fault.address / PAGE) - region.first;
    const last = Math.floor((fault.address + Math.max(fault.bytes, 1) - 1) / PAGE) - region.first;
    if (first < 0 || last >= region.count) throw new Error(`a fault outside region ${fault.mkey}`);
    for (let i = first; i <= last; i++) {
      if (chance.below(4) > 0) host.table(fault.mkey, i, 1, () => entry(region.first + i));
    }
    host.resumeFault(fault.token);
  }

  /** While a domain stands still, its memory must too. */
  private suspend(): void {
    if (this.isSuspended) return;
    this.isSuspended = true;
    const tag = this.host.protectionDomain(BUS_PD_SUSPEND, 1);
    this.onDone.set(tag, () => {
      const before = copyOf(this.host, this.pool);
      this.later(() => {
        expectSame(before, copyOf(this.host, this.pool));
        if (this.isSuspended) this.resume();
      });
    });
  }

  private resume(): void {
    this.isSuspended = false;
    this.host.protectionDomain(BUS_PD_RESUME, 1);
  }

  private complete({ qpn, wrId, flags, status }: BareCompletion): void {
    if (this.sharedPosted.delete(wrId)) {
      if ((flags & CQE_RECEIVE) === 0) throw new Error(`receive ${wrId} completes as a send`);
      return;
    }
    const slot = this.slots.find((s) => s.posted.has(wrId));
    if (slot === undefined)
      throw new Error(`work ${wrId} of ${qpn} is not posted, or has completed`);
    slot.posted.delete(wrId);
    if (status !== WC_SUCCESS && !slot.isBusy) slot.isDoubtful = true;
  }

  private expectFlushed(slot: Slot): void {
    if (slot.posted.size > 0)
      throw new Error(
        `work ${[...slot.posted].join()} of ${slot.qpn} (type ${slot.type}) never completed`,
      );
  }

  private later(run: () => void): void {
    const spanPs = [1, 10, 50][this.chance.below(3)] as number;
    this.host.at(this.host.node.now + 1 + this.chance.below(spanPs * US), run);
  }
}
