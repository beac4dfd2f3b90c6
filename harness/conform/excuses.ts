/**
 * The conditions of the rules: when a difference between ours and a captured host is one that a rule of
 * the rxe profile excuses.
 */

import {
  NAK_INVALID_REQUEST,
  NAK_REMOTE_ACCESS,
  NAK_REMOTE_OPERATION,
  NAK_SEQUENCE,
  psnAdd,
  psnDistance,
} from '../../hca/index.ts';
import {
  OP_FIRST,
  OP_KNOWN,
  OP_LAST,
  OP_READ,
  OP_SEND,
  QPT_RC,
  QPT_UC,
  RC_ATOMIC_WRITE,
  RC_FLUSH,
  RC_READ_REQUEST,
  RC_READ_RESPONSE_LAST,
  RC_READ_RESPONSE_MIDDLE,
  W_AETH,
  W_OPCODE,
  W_PSN,
  WC_LOC_LEN_ERR,
  WC_LOC_PROT_ERR,
  WC_LOC_QP_OP_ERR,
  WC_WR_FLUSH_ERR,
} from '../../transport/index.ts';
import { differenceOf, type FieldDifference, type Packet } from '../capture/packet.ts';
import type { CapturedPacket } from './capture.ts';
import type { Arrival, Flow } from './flow.ts';
import type { OurCompletion, Program } from './program.ts';
import { type Rule, rules } from './rxe-profile.ts';

/** What is known at the moment of a difference. */
export interface Situation {
  readonly flow: Flow;
  readonly program: Program;
  /** Whether the hosts' own devices lost packets in front of the capture. */
  readonly isLossy: boolean;
  readonly mtu: number;
  lastArrival: Arrival | undefined;
  /** Index of the next arrival. */
  nextArrival: number;
  /** The last RNR NAK that reached ours. */
  lastRnrNak: Packet | undefined;
  /** The last answer and the last request of the captured host. */
  lastAnswer: Packet | undefined;
  lastRequest: Packet | undefined;
  /** PSNs of the requests that ours has sent as captured: all, and those since it took a NAK. */
  readonly sent: Set<number>;
  readonly sentSinceNak: Map<number, Packet>;
}

export interface Verdict {
  readonly rule: Rule;
  /** Take both for the same, or go on without the captured one, or without ours. */
  readonly action: 'same' | 'skip-theirs' | 'skip-ours';
}

/** The rule by which rxe does not take a packet that reached it, if there is one. */
export function isDropped(
  { packet, place }: Arrival & { readonly place: number },
  { flow }: Situation,
): Rule | undefined {
  const { type } = flow.setup;
  if (type === QPT_RC && (packet.flags & OP_KNOWN) === 0) return rules.RESERVED_OPCODE;
  if (type === QPT_UC && flow.receives.beyondGap.has(place)) return rules.UC_STAYS_LOST;
  if (type !== QPT_RC || !flow.receives.duplicates.has(place)) return undefined;
  if (packet.opcode === RC_FLUSH) return rules.FLUSH_AGAIN;
  if (packet.opcode === RC_READ_REQUEST && packet.dmaBytes === 0)
    return rules.READ_OF_NOTHING_AGAIN;
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
  const isNothing =
    lastArrival?.packet.opcode === RC_READ_REQUEST && lastArrival.packet.dmaBytes === 0;
  if (there !== undefined && isNak(there, NAK_REMOTE_ACCESS) && isNothing && ours === undefined) {
    return { rule: rules.READ_OF_NOTHING_AGAIN, action: 'skip-theirs' };
  }
  if (there !== undefined && isNak(there, NAK_SEQUENCE)) {
    if (lastAnswer?.isRnrNak && lastAnswer.psn === there.psn && lastAnswer.msn === there.msn) {
      return { rule: rules.NAK_AFTER_RNR, action: 'skip-theirs' };
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
      return { rule: rules.RECEIVE_TOO_SMALL, action: 'same' };
    }
    if (isDuplicateAck(ours, there, lastArrival?.packet)) {
      return { rule: rules.DUPLICATE_ACK, action: 'same' };
    }
    if (isResumedRead(ours, there)) return { rule: rules.READ_RESUMED, action: 'same' };
    const isOnDemand =
      lastArrival !== undefined && program.memory.hasOnDemandAt(lastArrival.packet.address);
    if (difference.field.startsWith('payload byte') && isOnDemand) {
      return { rule: rules.ON_DEMAND_OFFSET, action: 'same' };
    }
  }
  if (ours !== undefined && situation.isLossy) {
    // The next captured answer says more, or answers what has not arrived yet.
    const isBehind = there === undefined || psnDistance(ackedBy(there), ackedBy(ours)) >= 0;
    const isLater = (theirs?.index ?? 0) > situation.nextArrival;
    if (isBehind || isLater) return { rule: rules.LOST_BEFORE, action: 'skip-ours' };
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
      return { rule: rules.RNR_ACKS_NOTHING, action: 'skip-theirs' };
    }
  }
  const isLost = there?.opcode === RC_ATOMIC_WRITE || there?.opcode === RC_FLUSH;
  if (there !== undefined && isLost && there.address === 0) {
    const isAgain = situation.sent.has(there.psn);
    if (isAgain && differenceOf(ours.at(0), there) === undefined) {
      return { rule: rules.ADDRESS_LOST, action: 'same' };
    }
  }
  // Sent again without a NAK: ours does that when its own timer fires, and has nothing else to send.
  const before = there === undefined ? undefined : situation.sentSinceNak.get(there.psn);
  if (there !== undefined && before !== undefined) {
    if (differenceOf(before, there) === undefined)
      return { rule: rules.SENT_AGAIN, action: 'skip-theirs' };
  }
  if (situation.isLossy && (there === undefined || psnDistance(there.psn, ours.psn) > 0)) {
    return { rule: rules.LOST_BEFORE, action: 'skip-ours' };
  }
  return undefined;
}

/** Why a completion may have another status. */
export function excuseStatus(
  { status }: OurCompletion,
  there: number,
  { flow }: Situation,
): Rule | undefined {
  if (there !== WC_LOC_QP_OP_ERR) return undefined;
  if (status === WC_WR_FLUSH_ERR && flow.setup.type === QPT_UC) return rules.RECEIVE_TOO_SMALL;
  if (status === WC_LOC_LEN_ERR) return rules.RECEIVE_TOO_SMALL;
  return status === WC_LOC_PROT_ERR ? rules.RECEIVE_STATUS : undefined;
}

/** The last PSN that an answer acknowledges. */
function ackedBy(answer: Packet): number {
  return answer.isNak || answer.isRnrNak ? psnAdd(answer.psn, -1) : answer.psn;
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
  if (psnDistance(ours.psn, theirs.psn) <= 0 || psnDistance(theirs.psn, cause.psn) < 0)
    return false;
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
