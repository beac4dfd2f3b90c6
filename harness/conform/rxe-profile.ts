/**
 * The rxe profile: where Linux rdma_rxe is known to depart from the specification, as rules, and what
 * a capture itself cannot show.
 *
 * A difference between ours and a captured rxe host is a failure unless a rule here says why it may
 * be. A rule looks at packets and at the state of the queue pair, never at names of files.
 */
import {
  OP_FIRST,
  OP_KNOWN,
  OP_LAST,
  OP_READ,
  OP_SEND,
  QPT_RC,
  QPT_UC,
  RC_ATOMIC_WRITE,
  RC_READ_RESPONSE_LAST,
  RC_READ_RESPONSE_MIDDLE,
  rxeIcrcRules,
  W_AETH,
  W_OPCODE,
  W_PSN,
  WC_LOC_LEN_ERR,
  WC_LOC_PROT_ERR,
  WC_LOC_QP_OP_ERR,
} from '../../transport/index.ts';
import type { CapturedPacket } from './capture.ts';
import type { Arrival, Flow } from './flow.ts';
import {
  differenceOf,
  type FieldDifference,
  NAK_INVALID_REQUEST,
  NAK_REMOTE_OPERATION,
  NAK_SEQUENCE,
  type Packet,
  psnAfter,
  psnDistance,
} from './packet.ts';
import type { OurCompletion, Program } from './program.ts';

export interface Rule {
  readonly name: string;
  /** What the specification says, or what a capture would have to show. */
  readonly specification: string;
  /** What rxe does, or what the capture lacks. */
  readonly departure: string;
  readonly source: string;
}

/** What is known at the moment of a difference. */
export interface Situation {
  readonly flow: Flow;
  readonly program: Program;
  /** Whether the hosts' own devices lost packets in front of the capture. */
  readonly isLossy: boolean;
  readonly mtu: number;
  lastArrival: Arrival | undefined;
  /** The last RNR NAK that reached ours. */
  lastRnrNak: Packet | undefined;
  /** The last answer and the last request of the captured host. */
  lastAnswer: Packet | undefined;
  lastRequest: Packet | undefined;
  /** PSNs of the requests that ours has sent as captured: all, and those since it took a NAK. */
  readonly sent: Set<number>;
  readonly sentSinceNak: Set<number>;
}

export interface Verdict {
  readonly rule: Rule;
  /** Take both for the same, or go on without the captured one, or without ours. */
  readonly action: 'same' | 'skip-theirs' | 'skip-ours';
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
  departure: 'NAK (remote operational error), local QP operation error',
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
  specification: 'a duplicate SEND or WRITE is answered with an ACK for the last PSN that was executed',
  departure: 'the ACK is for the last PSN that had been acknowledged by an ACK: a READ behind it does not count',
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
  departure:
    'one of length 0 is dropped unless its R_Key is 0, and the requester runs out of retries',
  source: 'rxe_resp.c: qp_resp_from_reth forgets the key, duplicate_request compares it',
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
const ATOMIC_WRITE_AGAIN: Rule = {
  name: 'rxe-atomic-write-again',
  specification: 'a request that is sent again is the same request',
  departure: 'an ATOMIC WRITE that is sent again has address 0',
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
  ATOMIC_WRITE_AGAIN,
  SENT_AGAIN,
  INVALIDATE_FLAG,
  LOST_BEFORE,
  ALTERED,
  LATE,
];

export const rules = {
  ON_DEMAND_OFFSET,
  INVALIDATE_FLAG,
  RETRY_FOR_EVER,
  RD_ATOMIC_EXCEEDED,
  ALTERED,
  LATE,
} as const;

/** The rule by which rxe does not take a packet that reached it, if there is one. */
export function isDropped(
  { packet, place }: Arrival & { readonly place: number },
  { flow }: Situation,
): Rule | undefined {
  const { type } = flow.setup;
  if (type === QPT_RC && (packet.flags & OP_KNOWN) === 0) return RESERVED_OPCODE;
  if (type === QPT_UC && flow.receives.beyondGap.has(place)) return UC_STAYS_LOST;
  return undefined;
}

/**
 * Why an answer of ours and the next one of the captured host may differ. Ours is undefined when it
 * has nothing to say; `difference` when the captured host has nothing more to say.
 */
export function excuseAnswer(
  ours: Packet | undefined,
  theirs: CapturedPacket | undefined,
  difference: FieldDifference | undefined,
  situation: Situation,
): Verdict | undefined {
  const { lastAnswer, lastArrival, program } = situation;
  const there = theirs?.packet;
  if (there !== undefined && isNak(there, NAK_SEQUENCE)) {
    if (lastAnswer?.isRnrNak && lastAnswer.psn === there.psn) {
      return { rule: NAK_AFTER_RNR, action: 'skip-theirs' };
    }
  }
  if (ours !== undefined && there !== undefined && difference !== undefined) {
    if (
      difference.field === 'syndrome' &&
      isNak(ours, NAK_INVALID_REQUEST) &&
      isNak(there, NAK_REMOTE_OPERATION) &&
      isSameBut(ours, there, [W_AETH]) &&
      ours.msn === there.msn &&
      ((lastArrival?.packet.flags ?? 0) & OP_SEND) !== 0
    ) {
      return { rule: RECEIVE_TOO_SMALL, action: 'same' };
    }
    if (isDuplicateAck(ours, there, lastArrival?.packet)) {
      return { rule: DUPLICATE_ACK, action: 'same' };
    }
    if (isResumedRead(ours, there)) return { rule: READ_RESUMED, action: 'same' };
    const isOnDemand =
      lastArrival !== undefined && program.hasOnDemandAt(lastArrival.packet.address);
    if (difference.field.startsWith('payload byte') && isOnDemand) {
      return { rule: ON_DEMAND_OFFSET, action: 'same' };
    }
  }
  if (ours !== undefined && situation.isLossy) {
    const isBehind = there === undefined || psnDistance(ackedBy(there), ackedBy(ours)) >= 0;
    if (isBehind) return { rule: LOST_BEFORE, action: 'skip-ours' };
  }
  return undefined;
}

/** The same for requests. */
export function excuseRequest(
  ours: Packet,
  theirs: CapturedPacket | undefined,
  situation: Situation,
): Verdict | undefined {
  const there = theirs?.packet;
  if (there !== undefined && situation.lastRnrNak?.psn === ours.psn) {
    if (psnDistance(ours.psn, there.psn) > 0) {
      return { rule: RNR_ACKS_NOTHING, action: 'skip-theirs' };
    }
  }
  if (there !== undefined && there.opcode === RC_ATOMIC_WRITE && there.address === 0) {
    const isAgain = situation.sent.has(there.psn);
    if (isAgain && differenceOf(ours.at(0), there) === undefined) {
      return { rule: ATOMIC_WRITE_AGAIN, action: 'same' };
    }
  }
  // Ours has gone back for that NAK, and sends it again for the next one only.
  if (there !== undefined && situation.sentSinceNak.has(there.psn)) {
    if ((situation.sent.get(there.psn) ?? 0) > 1)
      return { rule: SENT_AGAIN, action: 'skip-theirs' };
  }
  if (situation.isLossy && (there === undefined || psnDistance(there.psn, ours.psn) > 0)) {
    return { rule: LOST_BEFORE, action: 'skip-ours' };
  }
  return undefined;
}

/** Why a completion may have another status. */
export function excuseStatus({ status }: OurCompletion, there: number): Rule | undefined {
  if (there !== WC_LOC_QP_OP_ERR) return undefined;
  if (status === WC_LOC_LEN_ERR) return RECEIVE_TOO_SMALL;
  return status === WC_LOC_PROT_ERR ? RECEIVE_STATUS : undefined;
}

/** The last PSN that an answer acknowledges. */
function ackedBy(answer: Packet): number {
  return answer.isNak || answer.isRnrNak ? psnAfter(answer.psn, -1) : answer.psn;
}

function isNak(packet: Packet, code: number): boolean {
  return packet.isNak && packet.syndromeValue === code;
}

/** Whether two packets agree in everything but these words. */
function isSameBut(ours: Packet, theirs: Packet, words: readonly number[]): boolean {
  const changes = Object.fromEntries(words.map((word) => [word, theirs.words[word]]));
  return differenceOf(ours.with(changes), theirs) === undefined;
}

/** Both acknowledge a duplicate, the captured one for an older PSN. */
function isDuplicateAck(ours: Packet, theirs: Packet, cause: Packet | undefined): boolean {
  if (cause === undefined || !ours.isAck || !theirs.isAck) return false;
  if (psnDistance(ours.psn, theirs.psn) <= 0 || psnDistance(theirs.psn, cause.psn) < 0) return false;
  return isSameBut(ours, theirs, [W_PSN]);
}

/** A response of ours starts anew where the captured one goes on; everything else is the same. */
function isResumedRead(ours: Packet, theirs: Packet): boolean {
  const isRead = (OP_READ & ours.flags & theirs.flags) !== 0;
  if (!isRead || (ours.flags & OP_FIRST) === 0 || (theirs.flags & OP_FIRST) !== 0) return false;
  const isLast = (ours.flags & OP_LAST) !== 0;
  if (theirs.opcode !== (isLast ? RC_READ_RESPONSE_LAST : RC_READ_RESPONSE_MIDDLE)) return false;
  return isSameBut(ours, theirs, isLast ? [W_OPCODE] : [W_OPCODE, W_AETH]);
}
