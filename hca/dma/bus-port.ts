/**
 * The adapter's side of the bus: DMA, completions, events and interrupts, and what each costs.
 *
 * Everything the adapter sends to its host goes through `send`, in order, over one link; bus costs
 * are charged here and nowhere else. Because the bus keeps order, a COMMAND_DONE that follows a
 * DMA_READ also says that the read has sampled its memory.
 */
import {
  BURST,
  BURST_OFFSET,
  BUS_ASYNC_EVENT,
  BUS_COMMAND_DONE,
  BUS_COMPLETION,
  BUS_CQ_EVENT,
  BUS_DMA_ATOMIC,
  BUS_DMA_READ,
  BUS_DMA_WRITE,
  BUS_INTERRUPT,
  BUS_PAGE_FAULT,
  busTransferBytes,
  DMA_ENDS_MESSAGE,
  DMA_SCATTERED,
  FRAME_WORDS,
  type FramePool,
  Link,
  type Node,
  PAYLOAD_BYTES,
  type Port,
  RECORD_FRAME_SENT,
  type TimePs,
  VECTOR_ASYNC,
  VECTOR_COMPLETION,
  VECTOR_PAGE_FAULT,
} from '../../transport/index.ts';
import type { HcaProfile } from '../profile.ts';

/** Bytes of a message that carries no data: a CQE or EQE is 64 bytes (mlx5), a request is one TLP. */
const ENTRY_BYTES = 64;
const MSIX_BYTES = 4;
const READ_REQUEST_BYTES = 8;
/** Operands of the larger AtomicOp. */
const ATOMIC_BYTES = 16;

export class BusPort {
  private readonly link: Link;

  constructor(
    private readonly node: Node,
    private readonly port: Port,
    private readonly pool: FramePool,
    profile: HcaProfile,
  ) {
    this.link = new Link(profile.busRateGbps, profile.busLatencyPs);
  }

  /** Asks the host for the pages of `burst`; the data come back under `tag`. Hands the burst over. */
  dmaRead(readyPs: TimePs, tag: number, burst: number): void {
    this.dmaReadOfMessage(readyPs, tag, burst, 0, 0, 0, 0, 0);
  }

  /** The same, for a transfer that ends message `message` of `qpn` when `flags` says so. */
  dmaReadOfMessage(
    readyPs: TimePs,
    tag: number,
    burst: number,
    flags: number,
    qpn: number,
    message: number,
    messageAddress: number,
    messageBytes: number,
  ): void {
    const frame = this.frame(BUS_DMA_READ);
    const words = this.pool.words;
    const base = frame * FRAME_WORDS;
    words[base + 1] = tag;
    words[base + 2] = flags;
    words[base + 3] = qpn;
    words[base + 4] = message;
    words[base + 5] = messageBytes;
    words[base + BURST] = burst;
    words[base + PAYLOAD_BYTES] = this.pool.burstBytes[burst];
    this.pool.doubles[frame * 2] = messageAddress;
    this.send(readyPs, frame, READ_REQUEST_BYTES * this.pool.burstPages(burst));
  }

  /**
   * Writes `bytes` of `burst` from `offset` on to page frame `page` at `within`, going on at the
   * start of `nextPage`. Takes a reference of its own. Returns the frame, so that the caller can name
   * the message it ends before `sendDmaWrite`.
   */
  dmaWrite(
    page: number,
    within: number,
    nextPage: number,
    burst: number,
    offset: number,
    bytes: number,
  ): number {
    const frame = this.frame(BUS_DMA_WRITE);
    const words = this.pool.words;
    const base = frame * FRAME_WORDS;
    words[base + 1] = page;
    words[base + 2] = within;
    words[base + 3] = nextPage;
    words[base + BURST] = burst;
    words[base + BURST_OFFSET] = offset;
    words[base + PAYLOAD_BYTES] = bytes;
    if (burst !== 0) this.pool.retainBurst(burst);
    return frame;
  }

  /**
   * Says of a DMA write that it ends message `message` of `qpn`: `bytes` at `address`, or in the
   * entries of the receive whose wr_id `address` is (`isScattered`).
   */
  endMessage(
    frame: number,
    qpn: number,
    message: number,
    address: number,
    bytes: number,
    isScattered: boolean,
  ): void {
    const words = this.pool.words;
    const base = frame * FRAME_WORDS;
    words[base + 4] = isScattered ? DMA_ENDS_MESSAGE | DMA_SCATTERED : DMA_ENDS_MESSAGE;
    words[base + 5] = qpn;
    words[base + 6] = message;
    words[base + 7] = bytes;
    this.pool.doubles[frame * 2] = address;
  }

  /** Sends a frame made by `dmaWrite`. */
  sendDmaWrite(readyPs: TimePs, frame: number): void {
    // Inert: a host learns of data only from the completion behind them.
    this.send(readyPs, frame, this.pool.words[frame * FRAME_WORDS + PAYLOAD_BYTES], true);
  }

  /** Sends an atomic operation (see `AtomicTags`). */
  dmaAtomic(
    readyPs: TimePs,
    tag: number,
    page: number,
    within: number,
    operation: number,
    dataHigh: number,
    dataLow: number,
    compareHigh: number,
    compareLow: number,
  ): void {
    const frame = this.frame(BUS_DMA_ATOMIC);
    const words = this.pool.words;
    const base = frame * FRAME_WORDS;
    words[base + 1] = tag;
    words[base + 2] = page;
    words[base + 3] = within;
    words[base + 4] = operation;
    words[base + 5] = dataHigh;
    words[base + 6] = dataLow;
    words[base + 7] = compareHigh;
    words[base + 8] = compareLow;
    this.send(readyPs, frame, ATOMIC_BYTES);
  }

  /** Posts a completion queue entry. */
  completion(
    readyPs: TimePs,
    cqn: number,
    qpn: number,
    wrId: number,
    status: number,
    opcode: number,
    byteLen: number,
    immediate: number,
    flags: number,
    sourceQpn: number,
    slid: number,
  ): void {
    const frame = this.frame(BUS_COMPLETION);
    const words = this.pool.words;
    const base = frame * FRAME_WORDS;
    words[base + 1] = cqn;
    words[base + 2] = qpn;
    words[base + 3] = wrId;
    words[base + 4] = status;
    words[base + 5] = opcode;
    words[base + 6] = byteLen;
    words[base + 7] = immediate;
    words[base + 8] = flags;
    words[base + 9] = sourceQpn;
    words[base + 10] = slid;
    this.send(readyPs, frame, ENTRY_BYTES);
  }

  /** Posts a completion event for queue `cqn` and interrupts. */
  completionEvent(readyPs: TimePs, cqn: number): void {
    const frame = this.frame(BUS_CQ_EVENT);
    this.pool.words[frame * FRAME_WORDS + 1] = cqn;
    this.send(readyPs, frame, ENTRY_BYTES);
    this.interrupt(readyPs, VECTOR_COMPLETION);
  }

  /** Posts a page-fault event and interrupts. */
  pageFault(
    readyPs: TimePs,
    token: number,
    mkey: number,
    qpn: number,
    access: number,
    address: number,
    bytes: number,
  ): void {
    const frame = this.frame(BUS_PAGE_FAULT);
    const words = this.pool.words;
    const base = frame * FRAME_WORDS;
    words[base + 1] = token;
    words[base + 2] = mkey;
    words[base + 3] = qpn;
    words[base + 4] = access;
    words[base + 5] = bytes;
    this.pool.doubles[frame * 2] = address;
    this.send(readyPs, frame, ENTRY_BYTES);
    this.interrupt(readyPs, VECTOR_PAGE_FAULT);
  }

  /** Posts an asynchronous event (IBV_EVENT_*) of queue pair, CQ or SRQ `number` and interrupts. */
  asyncEvent(readyPs: TimePs, event: number, number: number): void {
    const frame = this.frame(BUS_ASYNC_EVENT);
    this.pool.words[frame * FRAME_WORDS + 1] = event;
    this.pool.words[frame * FRAME_WORDS + 2] = number;
    this.send(readyPs, frame, ENTRY_BYTES);
    this.interrupt(readyPs, VECTOR_ASYNC);
  }

  /** Answers a command; `mailbox` is what it asked for, as bytes. */
  commandDone(
    readyPs: TimePs,
    tag: number,
    status: number,
    result: number,
    mailbox?: Uint8Array,
  ): void {
    const frame = this.frame(BUS_COMMAND_DONE);
    const words = this.pool.words;
    if (mailbox !== undefined) {
      words[frame * FRAME_WORDS + BURST] = this.pool.burstFromBytes(mailbox, 0, mailbox.length);
      words[frame * FRAME_WORDS + PAYLOAD_BYTES] = mailbox.length;
    }
    words[frame * FRAME_WORDS + 1] = tag;
    words[frame * FRAME_WORDS + 2] = status;
    words[frame * FRAME_WORDS + 3] = result;
    this.send(readyPs, frame, ENTRY_BYTES);
  }

  private interrupt(readyPs: TimePs, vector: number): void {
    const frame = this.frame(BUS_INTERRUPT);
    this.pool.words[frame * FRAME_WORDS + 1] = vector;
    this.send(readyPs, frame, MSIX_BYTES);
  }

  private frame(type: number): number {
    const frame = this.pool.allocate();
    this.pool.words[frame * FRAME_WORDS] = type;
    return frame;
  }

  private send(readyPs: TimePs, frame: number, bytes: number, isInert = false): void {
    const arrivalPs = this.link.transmit(readyPs, busTransferBytes(bytes));
    const digest = this.node.digest;
    if (digest.enabled) {
      this.pool.record(digest, RECORD_FRAME_SENT, arrivalPs, this.port.index, frame);
    }
    this.port.send(arrivalPs, frame, isInert);
  }
}
