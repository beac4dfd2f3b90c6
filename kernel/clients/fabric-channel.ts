/**
 * Messages between two hosts over a reliable connection of the fabric, and RDMA on the same connection:
 * what drivers that share memory across hosts talk through.
 *
 * Messages are small SENDs from and into a ring of registered buffers, so they can be lost and sent again,
 * delayed, and queued behind other traffic, as everything else on the wire. They arrive in order. One
 * thread polls the completion queue and calls `onMessage`, which must not sleep. When the connection
 * breaks, or is cut, `broken` resolves, and nothing that the peer does reaches this host through it any
 * more. Owns queue pair, buffers and that thread; what messages mean is `sharing-protocol.ts`'s.
 */
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  CQE_RECEIVE,
  QPS_ERR,
  QPS_INIT,
  QPS_RTR,
  QPS_RTS,
  SEND_SIGNALED,
  WC_SUCCESS,
  WR_SEND,
} from '../../transport/index.ts';
import type { CompletionQueue } from '../driver/completion-queue.ts';
import type { MemoryRegion } from '../driver/memory-region.ts';
import type { QueuePair } from '../driver/queue-pair.ts';
import type { Verbs } from '../driver/verbs.ts';
import type { WorkCompletion } from '../driver/work.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import { PROT_READ, PROT_WRITE } from '../mm/virtual/vma.ts';
import { Completion, type Sim } from '../sched/completion.ts';

export interface ChannelPlan {
  readonly name: string;
  /** Protection domain; its own when not given. */
  readonly pd?: number;
  /** Length of each message; 64 when not given. */
  readonly messageBytes?: number;
  /** Messages on their way at most, in each direction; 64 when not given. */
  readonly depth?: number;
  /** Bytes of the buffer for RDMA that comes with it; none when not given. */
  readonly dataBytes?: number;
}

/** The other end, and how long to insist: codes of verbs. */
export interface ChannelPeer {
  readonly lid: number;
  readonly qpn: number;
  /** Local ACK time-out, 4.096 us * 2^code; 12 (17 ms) when not given. */
  readonly timeout?: number;
  /** Retries after a time-out, and after RNR NAKs; 7 (for RNR: without end) and 6 when not given. */
  readonly retryCnt?: number;
  readonly rnrRetry?: number;
}

/** One piece of RDMA: bytes of the data buffer and of the peer's memory. */
export interface Transfer {
  /** WR_RDMA_READ or WR_RDMA_WRITE. */
  readonly opcode: number;
  readonly dataOffset: number;
  readonly length: number;
  readonly remoteAddress: number;
  readonly rkey: number;
}

const WORD_BYTES = 4;
/** Bit of a work request id that stands for RDMA; the rest is its number. */
const TRANSFER = 0x4000_0000;

export class FabricChannel {
  /** Resolves when the connection is of no use any more. */
  readonly broken: Completion<void>;
  /** Called for each message in order, by the polling thread. */
  onMessage: (words: Int32Array) => void = () => {};
  messagesSent = 0;
  messagesReceived = 0;
  private readonly freeSlots: number[] = [];
  private slotFreed = new Completion<void>('room for a message');
  private readonly transfers = new Map<number, Completion<boolean>>();
  private lastTransfer = 0;

  private constructor(
    readonly verbs: Verbs,
    readonly name: string,
    readonly pd: number,
    private readonly cq: CompletionQueue,
    readonly qp: QueuePair,
    private readonly region: MemoryRegion,
    private readonly messageBytes: number,
    private readonly depth: number,
  ) {
    this.broken = new Completion<void>(`the end of channel ${name}`);
    for (let slot = 0; slot < depth; slot++) this.freeSlots.push(slot);
  }

  /** Makes one end in the process of `verbs`; `connect` takes it further. */
  static *open(verbs: Verbs, plan: ChannelPlan): Sim<FabricChannel> {
    const { name, messageBytes = 64, depth = 64, dataBytes = 0 } = plan;
    const bytes = Math.ceil((2 * depth * messageBytes) / PAGE_BYTES) * PAGE_BYTES + dataBytes;
    const address = yield* verbs.mm.mmap(0, bytes, PROT_READ | PROT_WRITE);
    const pd = plan.pd ?? (yield* verbs.allocPd());
    const cq = yield* verbs.createCq(4 * depth);
    const region = yield* verbs.regMr(pd, address, bytes, ACCESS_LOCAL_WRITE);
    const queues = { sendCq: cq, recvCq: cq, maxSendWr: 2 * depth, maxRecvWr: depth };
    const qp = yield* verbs.createQp(pd, queues);
    return new FabricChannel(verbs, name, pd, cq, qp, region, messageBytes, depth);
  }

  /** Connects to the peer's end and begins to receive. */
  *connect(peer: ChannelPeer): Sim<void> {
    const { verbs, qp } = this;
    const { lid, qpn, timeout = 12, retryCnt = 7, rnrRetry = 6 } = peer;
    const access = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_READ | ACCESS_REMOTE_WRITE;
    yield* verbs.modifyQp(qp, { state: QPS_INIT, pkeyIndex: 0, port: 1, access });
    for (let slot = 0; slot < this.depth; slot++) yield* this.postReceive(slot);
    yield* verbs.modifyQp(qp, {
      state: QPS_RTR,
      destLid: lid,
      destQpn: qpn,
      mtuBytes: 4096,
      receivePsn: 0,
      minRnrTimer: 12,
      maxDestRdAtomic: 16,
    });
    yield* verbs.modifyQp(qp, {
      state: QPS_RTS,
      sendPsn: 0,
      timeout,
      retryCnt,
      rnrRetry,
      maxRdAtomic: 16,
    });
    verbs.mm.memory.scheduler.spawn(`channel ${this.name}`, this.poll());
  }

  /** Sends a message; false when the connection is broken. Sleeps while too many are on their way. */
  *send(words: readonly number[]): Sim<boolean> {
    while (!this.broken.done && this.freeSlots.length === 0) yield this.slotFreed;
    if (this.broken.done) return false;
    const slot = this.freeSlots.pop() as number;
    const { verbs, qp, region, messageBytes } = this;
    const address = region.address + slot * messageBytes;
    yield* verbs.mm.write(address, new Uint8Array(Int32Array.from(words).buffer));
    if (this.broken.done) return false;
    this.messagesSent++;
    yield* verbs.postSend(qp, {
      opcode: WR_SEND,
      wrId: slot,
      flags: SEND_SIGNALED,
      sges: [{ address, length: messageBytes, lkey: region.lkey }],
    });
    return true;
  }

  /** Starts a piece of RDMA; the result resolves to false when the connection breaks first. */
  *transfer(piece: Transfer): Sim<Completion<boolean>> {
    const { verbs, qp, region } = this;
    const done = new Completion<boolean>(`RDMA on channel ${this.name}`);
    if (this.broken.done) {
      done.resolve(false);
      return done;
    }
    const { opcode, length, remoteAddress, rkey } = piece;
    this.lastTransfer = (this.lastTransfer + 1) & (TRANSFER - 1);
    const wrId = TRANSFER | this.lastTransfer;
    this.transfers.set(wrId, done);
    const sges = [{ address: this.dataAddress + piece.dataOffset, length, lkey: region.lkey }];
    const flags = SEND_SIGNALED;
    yield* verbs.postSend(qp, { opcode, wrId, flags, sges, remoteAddress, rkey });
    return done;
  }

  /** Work requests of RDMA that may be outstanding. */
  get transferDepth(): number {
    return this.depth;
  }

  /** Where the buffer for RDMA begins. */
  get dataAddress(): number {
    const rings = 2 * this.depth * this.messageBytes;
    return this.region.address + Math.ceil(rings / PAGE_BYTES) * PAGE_BYTES;
  }

  get dataBytes(): number {
    return this.region.address + this.region.length - this.dataAddress;
  }

  /** Ends the connection: when this returns, the peer can reach nothing here through it. */
  *cut(): Sim<void> {
    yield* this.verbs.modifyQp(this.qp, { state: QPS_ERR });
    this.break();
  }

  /** Gives everything back; the connection must be broken. */
  *close(): Sim<void> {
    const { verbs, region } = this;
    yield* verbs.destroyQp(this.qp);
    yield* verbs.destroyCq(this.cq);
    yield* verbs.deregMr(region);
    yield* verbs.mm.munmap(region.address, region.length);
  }

  private *poll(): Sim<void> {
    while (!this.broken.done) {
      const entry = yield* this.cq.next();
      if (entry.status !== WC_SUCCESS) {
        // The adapter has taken the queue pair to the error state; it answers nothing any more.
        this.break();
        return;
      }
      if (entry.flags & CQE_RECEIVE) yield* this.receive(entry);
      else this.retire(entry);
    }
  }

  private *receive({ wrId: slot }: WorkCompletion): Sim<void> {
    const bytes = this.verbs.mm.read(this.slotAddress(slot), this.messageBytes);
    this.messagesReceived++;
    this.onMessage(new Int32Array(bytes.buffer, 0, this.messageBytes / WORD_BYTES));
    if (!this.broken.done) yield* this.postReceive(slot);
  }

  private retire({ wrId }: WorkCompletion): void {
    if ((wrId & TRANSFER) !== 0) {
      this.transfers.get(wrId)?.resolve(true);
      this.transfers.delete(wrId);
      return;
    }
    this.freeSlots.push(wrId);
    this.wakeSenders();
  }

  private *postReceive(slot: number): Sim<void> {
    const { region, messageBytes: length } = this;
    const sges = [{ address: this.slotAddress(slot), length, lkey: region.lkey }];
    yield* this.verbs.postRecv(this.qp, { wrId: slot, sges });
  }

  private slotAddress(slot: number): number {
    return this.region.address + (this.depth + slot) * this.messageBytes;
  }

  private break(): void {
    if (this.broken.done) return;
    this.broken.resolve();
    for (const done of this.transfers.values()) done.resolve(false);
    this.transfers.clear();
    this.wakeSenders();
  }

  private wakeSenders(): void {
    const { slotFreed } = this;
    this.slotFreed = new Completion<void>(slotFreed.purpose);
    slotFreed.resolve();
  }
}
