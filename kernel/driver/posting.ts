/**
 * Posting work requests: the part of a verb that runs in the program, without the kernel. It checks
 * the request, copies inline data, books it and rings the doorbell.
 */
import { SEND_INLINE, type TimePs } from '../../transport/index.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Sim } from '../sched/completion.ts';
import type { Doorbells } from './doorbells.ts';
import { MESSAGE_MASK, type MessageLog } from './message-log.ts';
import type { QueuePair } from './queue-pair.ts';
import type { SharedReceiveQueue } from './shared-receive-queue.ts';
import { lengthOf, type ReceiveRequest, type ScatterEntry, type SendRequest } from './work.ts';

export class Posting {
  constructor(
    private readonly doorbells: Doorbells,
    private readonly mm: AddressSpace,
    private readonly log: MessageLog,
    private readonly postPs: TimePs,
  ) {}

  /** ibv_post_send; returns the number of the message (see Verbs.postSend). */
  *send(qp: QueuePair, request: SendRequest): Sim<number> {
    const { flags, sges = [] } = request;
    const isInline = (flags & SEND_INLINE) !== 0;
    if (isInline) {
      qp.checkSend(request);
      for (const sge of sges) yield* this.touch(sge);
    }
    yield this.postPs;
    qp.checkSend(request);
    // Nobody can change the data between here and the doorbell.
    const inline = isInline ? this.gather(sges) : undefined;
    const { message } = qp.addSend(request, isInline ? this.log.hashOf(qp, sges) : undefined);
    this.doorbells.send(qp.qpn, request, inline);
    return message & MESSAGE_MASK;
  }

  /** ibv_post_recv. */
  *receive(qp: QueuePair, request: ReceiveRequest): Sim<void> {
    yield this.postPs;
    qp.addReceive(request);
    this.doorbells.receive(false, qp.qpn, request);
  }

  /** ibv_post_srq_recv. */
  *receiveShared(srq: SharedReceiveQueue, request: ReceiveRequest): Sim<void> {
    yield this.postPs;
    srq.receives.add(request, 'post_srq_recv', `shared receive queue ${srq.srqn}`);
    this.doorbells.receive(true, srq.srqn, request);
  }

  /** The CPU reads a buffer: inline data is copied by the program itself. */
  private *touch({ address, length }: ScatterEntry): Sim<void> {
    if (length === 0) return;
    const first = Math.floor(address / PAGE_BYTES);
    const pages = Math.ceil((address + length) / PAGE_BYTES) - first;
    yield* this.mm.touch(address, pages, false);
  }

  private gather(sges: readonly ScatterEntry[]): Uint8Array {
    const bytes = new Uint8Array(lengthOf(sges));
    let at = 0;
    for (const { address, length } of sges) {
      bytes.set(this.mm.read(address, length), at);
      at += length;
    }
    return bytes;
  }
}
