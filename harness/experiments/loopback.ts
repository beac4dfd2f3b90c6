/**
 * A reliable connection of a host to itself, over the adapter's loopback: enough to have an adapter read
 * and write the memory of one program.
 */
import type { Host, MemoryRegion, QueuePair, Sim } from '../../kernel/index.ts';
import { assert, SEND_SIGNALED, WC_SUCCESS, WR_RDMA_WRITE } from '../../transport/index.ts';
import { connectRc } from './connect.ts';

/** LID of the only adapter of a stage. */
const OWN_LID = 1;

export class Loopback {
  private constructor(
    private readonly host: Host,
    readonly pd: number,
    private readonly qp: QueuePair,
  ) {}

  /** Makes a protection domain and a queue pair that is its own peer. */
  static *open(host: Host): Sim<Loopback> {
    const { verbs } = host;
    const pd = yield* verbs.allocPd();
    const cq = yield* verbs.createCq(64);
    const qp = yield* verbs.createQp(pd, { sendCq: cq, recvCq: cq, maxSendWr: 16, maxRecvWr: 1 });
    yield* connectRc(host, qp, { destLid: OWN_LID, destQpn: qp.qpn });
    return new Loopback(host, pd, qp);
  }

  /** RDMA WRITE of `length` bytes from an address of one region to one of another, to its completion. */
  *write(
    source: MemoryRegion,
    from: number,
    target: MemoryRegion,
    to: number,
    length: number,
  ): Sim<void> {
    yield* this.host.verbs.postSend(this.qp, {
      opcode: WR_RDMA_WRITE,
      wrId: 1,
      flags: SEND_SIGNALED,
      sges: [{ address: from, length, lkey: source.lkey }],
      remoteAddress: to,
      rkey: target.rkey,
    });
    const { status } = yield* this.qp.plan.sendCq.next();
    assert(status === WC_SUCCESS, `an RDMA WRITE of an experiment ends with status ${status}`);
  }
}
