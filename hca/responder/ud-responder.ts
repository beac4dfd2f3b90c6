/**
 * Responder of unreliable datagrams (IBTA 9.8.3): one packet, one message, no answer.
 *
 * The first 40 bytes of a receive are for the datagram's GRH. A datagram without one leaves them as
 * they are; one from a real wire brings 40 bytes with it. One that is bad, or finds no receive that it
 * fits into, is dropped, and no receive is used (IBTA 9.9.3, class D). One that meets a missing page
 * is dropped too, and the page is asked for: mlx5 adapters do the same, which is why they do not
 * announce on-demand receives of datagrams.
 */
import {
  BTH_WITH_GRH,
  BURST,
  BURST_OFFSET,
  CQE_WITH_GRH,
  FRAME_WORDS,
  GRH_BYTES,
  OP_SEND,
  opFlags,
  PAYLOAD_BYTES,
  type TimePs,
  W_BTH_FLAGS,
  W_LIDS,
  W_OPCODE,
  W_PSN,
  W_QKEY,
  W_SOURCE_QPN,
  WC_LOC_PROT_ERR,
  WC_LOC_QP_OP_ERR,
  WC_SUCCESS,
} from '../../transport/index.ts';
import { C } from '../counters.ts';
import { psnAdd } from '../qp/psn.ts';
import { FAULTED, PLACED } from './inbound.ts';
import { Responder } from './responder.ts';

export class UdResponder extends Responder {
  receive(frame: number, now: TimePs, readyPs: TimePs): void {
    if (!this.isOpen()) return;
    const { qp, parts, inbound } = this;
    const { counters } = parts;
    const words = parts.pool.words;
    const base = frame * FRAME_WORDS;
    const flags = opFlags[words[base + W_OPCODE]];
    if ((flags & OP_SEND) === 0) {
      counters[C.unreliable_drops]++;
      return;
    }
    if (words[base + W_QKEY] !== (qp.attributes.qkey | 0)) {
      counters[C.qkey_viol_cntr]++;
      return;
    }
    const hasHeader = (words[base + W_BTH_FLAGS] & BTH_WITH_GRH) !== 0;
    const here = words[base + PAYLOAD_BYTES];
    const bytes = hasHeader ? here : here + GRH_BYTES;
    if (bytes - GRH_BYTES > qp.attributes.mtu) {
      counters[C.unreliable_drops]++;
      return;
    }
    // PSNs of datagrams are not checked: where they come from changes from one to the next.
    this.expectedPsn = psnAdd(words[base + W_PSN], 1);
    if (!inbound.hasReceive) {
      if (qp.receiveQueue.isEmpty) {
        counters[C.out_of_buffer]++;
        return;
      }
      inbound.takeReceive(now);
    }
    if (inbound.isMalformed) {
      this.failReceive(WC_LOC_QP_OP_ERR, readyPs);
      return;
    }
    inbound.beginReceive(GRH_BYTES);
    if (bytes > inbound.totalBytes) {
      counters[C.resp_local_length_error]++;
      return;
    }
    if (!hasHeader) inbound.skip(GRH_BYTES);
    const burst = words[base + BURST];
    const offset = words[base + BURST_OFFSET];
    const verdict = inbound.place(burst, offset, here, this.nextMsn, readyPs);
    if (verdict === PLACED) {
      this.kind = OP_SEND;
      const slid = words[base + W_LIDS] >>> 16;
      const header = hasHeader ? CQE_WITH_GRH : 0;
      this.endMessage(frame, flags, header, words[base + W_SOURCE_QPN], slid);
    } else if (verdict === FAULTED) {
      counters[C.page_fault_drops]++;
      this.raiseFault(now);
    } else this.failReceive(WC_LOC_PROT_ERR, readyPs);
  }

  onResume(ok: boolean, now: TimePs): void {
    this.isFaulted = false;
    if (!ok && this.inbound.hasReceive && this.qp.responder === this) {
      this.failReceive(WC_LOC_PROT_ERR, now);
    }
  }

  /** A receive of the host's own that cannot be used ends the queue pair (class A). */
  private failReceive(status: number, readyPs: TimePs): void {
    this.inbound.failReceive(readyPs, status);
    this.qp.fail(WC_SUCCESS, readyPs);
  }
}
