/**
 * The rxe profile: where Linux rdma_rxe is known to depart from the specification, as rules, and what
 * a capture itself cannot show.
 *
 * A difference between ours and a captured rxe host is a failure unless a rule here says why it may
 * be. A rule looks at packets and at the state of the queue pair, never at names of files.
 */
import { rxeIcrcRules } from '../../transport/index.ts';

export interface Rule {
  readonly name: string;
  /** What the specification says, or what a capture would have to show. */
  readonly specification: string;
  /** What rxe does, or what the capture lacks. */
  readonly departure: string;
  readonly source: string;
}

const NAK_AFTER_RNR: Rule = {
  name: 'rxe-nak-after-rnr',
  specification:
    'after an RNR NAK the packets that follow in the flight are dropped in silence until the refused one comes again',
  departure: 'the first of them is answered with a NAK (sequence error) for the refused PSN',
  source: 'rxe_resp.c: check_psn does not know that an RNR NAK was sent',
};
const RNR_ACKS_NOTHING: Rule = {
  name: 'rxe-rnr-acks-nothing',
  specification:
    'an RNR NAK acknowledges every request before its PSN, and sending goes on from it',
  departure: 'the requester goes back to the last request that an ACK has acknowledged',
  source: 'rxe_comp.c: check_ack leaves comp.psn alone for an RNR NAK',
};
const RECEIVE_TOO_SMALL: Rule = {
  name: 'rxe-receive-too-small',
  specification: 'a SEND longer than its receive: NAK (invalid request), local length error',
  departure:
    'NAK (remote operational error), local QP operation error; of UC, too, where it should be dropped in silence',
  source: 'rxe_resp.c: send_data_in takes what does not fit for a malformed work request',
};
const RECEIVE_STATUS: Rule = {
  name: 'rxe-receive-protection-status',
  specification: 'a receive whose key or range is bad completes with a local protection error',
  departure: 'it completes with a local QP operation error',
  source: 'rxe_resp.c: RESPST_ERR_MALFORMED_WQE',
};
const DUPLICATE_ACK: Rule = {
  name: 'rxe-duplicate-ack-psn',
  specification:
    'a duplicate SEND or WRITE is answered with an ACK for the last PSN that was executed',
  departure:
    'the ACK is for the last PSN that had been acknowledged by an ACK: a READ behind it does not count',
  source: 'rxe_resp.c: duplicate_request takes resp.ack_psn',
};
const RESERVED_OPCODE: Rule = {
  name: 'rxe-reserved-opcode',
  specification: 'a request with a reserved opcode is answered with a NAK (invalid request)',
  departure: 'it is dropped in silence',
  source: 'rxe_recv.c: hdr_check drops what rxe_opcode has no mask for',
};
const UC_STAYS_LOST: Rule = {
  name: 'rxe-uc-stays-lost',
  specification: 'after a gap a UC responder takes the next message from its first packet on',
  departure:
    'the message behind one that was cut off is dropped too, and behind a WRITE that was cut off everything is',
  source: 'rxe_resp.c: do_class_d1e_error forgets the message only where it had a receive',
};
const READ_RESUMED: Rule = {
  name: 'rxe-read-resumed-in-the-middle',
  specification:
    'the response to a READ that is asked for again starts with a FIRST or ONLY packet',
  departure: 'it goes on with MIDDLE and LAST packets, as if it had never been interrupted',
  source: 'rxe_resp.c: a duplicate READ continues the saved one',
};
const READ_OF_NOTHING_AGAIN: Rule = {
  name: 'rxe-read-of-nothing-again',
  specification: 'a duplicate READ is answered, whatever its length',
  departure: 'one of length 0 is dropped, or refused (remote access error) if its R_Key is 0',
  source: 'rxe_resp.c: qp_resp_from_reth forgets the key; duplicate_request and read_reply want it',
};
const FLUSH_AGAIN: Rule = {
  name: 'rxe-flush-again',
  specification: 'a duplicate FLUSH is answered again',
  departure: 'it is dropped, and a requester that lost the answer runs out of retries',
  source:
    'rxe_resp.c: rxe_prepare_res notes no PSN of a FLUSH, so duplicate_request does not find it',
};
const RD_ATOMIC_EXCEEDED: Rule = {
  name: 'rxe-max-dest-rd-atomic',
  specification: 'more READs and atomics at once than max_dest_rd_atomic: NAK (invalid request)',
  departure: 'all are answered; here they are given one after the other',
  source: 'rxe_resp.c: check_chk_resource refuses only max_dest_rd_atomic 0',
};
const ON_DEMAND_OFFSET: Rule = {
  name: 'rxe-on-demand-offset',
  specification: 'data lie where the request says',
  departure:
    'in on-demand regions data lie elsewhere unless every packet starts a page (6.16 to 7.2)',
  source: 'rxe_odp.c: the offset within the page is lost',
};
const RETRY_FOR_EVER: Rule = {
  name: 'rxe-retry-for-ever',
  specification: 'retry_cnt 7 is seven retries',
  departure: 'retry_cnt 7 is without end; the requester is followed up to there',
  source: 'rxe_comp.c: retry_cnt 7 is not counted down',
};
const ADDRESS_LOST: Rule = {
  name: 'rxe-address-lost',
  specification: 'a request that is sent again is the same request',
  departure: 'an ATOMIC WRITE or a FLUSH that is sent again has address 0',
  source: 'rxe_req.c: req_retry advances the address of every request that is not a WRITE or SEND',
};
const SENT_AGAIN: Rule = {
  name: 'rxe-sent-again',
  specification: 'packets are sent again after a NAK, a time-out, or a gap in responses',
  departure:
    'packets are sent again though nobody asked for them: twice for one NAK, or in the middle of a flight when its timer fires',
  source: 'rxe_req.c and rxe_comp.c: need_retry is set while a retry or a flight is on its way',
};
const INVALIDATE_FLAG: Rule = {
  name: 'rxe-invalidate-flag',
  specification: 'a receive that invalidated a key completes with IBV_WC_WITH_INV (8) and the key',
  departure: "it has flag 4 instead, the kernel's own number, so that the program sees no key",
  source: 'rxe_resp.c: do_complete copies IB_WC_WITH_INVALIDATE to user space',
};
const LOST_BEFORE: Rule = {
  name: 'lost-before-capture',
  specification: 'a capture shows what hosts send',
  departure:
    "netem in the host loses packets that its own queue pair has sent, before the capture's place",
  source: 'the text beside the capture names the qdisc',
};
const ALTERED: Rule = {
  name: 'altered-in-flight',
  specification: 'a capture shows what arrives',
  departure:
    'the hub altered the frame; what arrived is as the text says in words, or what explains the answers',
  source: "the hub's interventions list it as delivered otherwise than captured",
};
const LATE: Rule = {
  name: 'delivered-late',
  specification: 'a capture shows the order in which packets arrive',
  departure: 'the hub held the frame back and delivered it later, behind others',
  source: "the hub's interventions list it as dropped; the answers show that it came",
};

/** ICRCs of rxe, which the codec knows. */
const icrcRules: readonly Rule[] = rxeIcrcRules.map(({ name, meaning, source }) => ({
  name,
  specification: 'the ICRC covers every header and the payload once',
  departure: meaning,
  source,
}));

/** Every rule; nothing else excuses a difference. */
export const rxeProfile: readonly Rule[] = [
  ...icrcRules,
  NAK_AFTER_RNR,
  RNR_ACKS_NOTHING,
  RECEIVE_TOO_SMALL,
  RECEIVE_STATUS,
  DUPLICATE_ACK,
  RESERVED_OPCODE,
  UC_STAYS_LOST,
  READ_RESUMED,
  READ_OF_NOTHING_AGAIN,
  FLUSH_AGAIN,
  RD_ATOMIC_EXCEEDED,
  ON_DEMAND_OFFSET,
  RETRY_FOR_EVER,
  ADDRESS_LOST,
  SENT_AGAIN,
  INVALIDATE_FLAG,
  LOST_BEFORE,
  ALTERED,
  LATE,
];

/** The rules by name, for the conditions in `excuses.ts`. */
export const rules = {
  NAK_AFTER_RNR,
  RNR_ACKS_NOTHING,
  RECEIVE_TOO_SMALL,
  RECEIVE_STATUS,
  DUPLICATE_ACK,
  RESERVED_OPCODE,
  UC_STAYS_LOST,
  READ_RESUMED,
  READ_OF_NOTHING_AGAIN,
  FLUSH_AGAIN,
  RD_ATOMIC_EXCEEDED,
  ON_DEMAND_OFFSET,
  RETRY_FOR_EVER,
  ADDRESS_LOST,
  SENT_AGAIN,
  INVALIDATE_FLAG,
  LOST_BEFORE,
  ALTERED,
  LATE,
} as const;
