/**
 * The second pass over a capture: what each packet means to its receiver, from the packets before it.
 *
 * A capture holds packets as they were sent. That one was lost shows only in what its receiver says
 * later, so a receiver is taken to have what was sent until it says otherwise.
 */
import {
  AETH_ACK,
  AETH_KIND,
  AETH_NAK,
  AETH_RNR_NAK,
  NAK_SEQUENCE,
  psnAdd,
  psnDistance,
} from '../../hca/index.ts';
import {
  ANNOUNCE_PD_SUSPEND,
  HDR_AETH,
  HDR_RETH,
  OP_ANNOUNCE,
  OP_ATOMIC,
  OP_ATOMIC_WRITE,
  OP_CNP,
  OP_FIRST,
  OP_FLUSH,
  OP_KNOWN,
  OP_LAST,
  OP_READ,
  OP_RESPONSE,
  OP_SEND,
  opFlags,
  RC_ACKNOWLEDGE,
  RC_COMPARE_SWAP,
  SERVICE_RC,
  SERVICE_UD,
} from '../../transport/index.ts';
import type { Packet } from '../capture/packet.ts';
import type { Asked, Flow } from './flow.ts';
import type { Sighting } from './frame-reader.ts';
import { describeMad } from './mad.ts';
import { nakName, nakStatus, rnrText } from './names.ts';
import type { Survey } from './survey.ts';

/** The queue pair of management datagrams. */
const GSI_QPN = 1;
const ASKED = OP_READ | OP_ATOMIC | OP_FLUSH | OP_ATOMIC_WRITE;

export class Follower {
  constructor(private readonly survey: Survey) {}

  /** What packet `seen` of frame `frame` means to its receiver. */
  follow(seen: Sighting, frame: number): string {
    const { packet } = seen;
    const flow = this.survey.flows.of(seen.source, seen.dest, packet.destQpn, packet.service);
    flow.counts.packets++;
    flow.counts.payloadBytes += packet.payload.length;
    if (seen.icrc === 'wrong') {
      flow.counts.wrongIcrcs++;
      return 'dropped: its ICRC is wrong';
    }
    const flags = opFlags[packet.opcode];
    if ((flags & OP_CNP) !== 0) return 'congestion on the way: send slower';
    if ((flags & OP_ANNOUNCE) !== 0) {
      const isSuspend = packet.opcode === ANNOUNCE_PD_SUSPEND;
      return `the sender's protection domain ${isSuspend ? 'is suspended: send nothing' : 'runs again'}`;
    }
    if (packet.service === SERVICE_UD) {
      if (packet.destQpn === GSI_QPN) return describeMad(packet.payload);
      return `datagram from QP ${hex(packet.sourceQpn)}`;
    }
    if ((flags & OP_KNOWN) === 0) return 'an opcode that is reserved';
    if ((flags & OP_RESPONSE) !== 0) return answer(flow, packet);
    return request(flow, packet, frame, this.survey.packetsOfMessage(frame));
  }
}

/** `packets`: of the message that this packet starts, 0 where that is not known. */
function request(flow: Flow, packet: Packet, frame: number, packets: number): string {
  const { psn } = packet;
  const before = flow.frameOf(psn);
  const isResumed = before !== undefined && isAskedKind(packet.flags) && resumes(flow, packet);
  const span = (packet.flags & OP_READ) !== 0 ? readPackets(flow, packet) : 1;
  if (flow.endPsn < 0) flow.expectedPsn = psn;
  const ahead = flow.endPsn < 0 ? 0 : psnDistance(psn, flow.endPsn);
  const isExpected = psn === flow.expectedPsn;
  const wasAskedFor = flow.isAskedFor;
  flow.sent(psn, span, frame);
  const what = describeRequest(flow, packet, frame, span, packets);
  if (isExpected) {
    flow.expectedPsn = psnAdd(psn, span);
    flow.isAskedFor = false;
  }
  if (ahead > 0) return gap(flow, psn, ahead, what);
  if (ahead === 0) {
    if (isExpected) return `new: ${what}`;
    return `${what}, beyond PSN ${flow.expectedPsn} that the receiver waits for: dropped`;
  }
  if (before === undefined) return `what was missing: ${what}`;
  flow.counts.retransmitted++;
  if (flow.isAcknowledged(psn) && !isResumed) {
    flow.counts.duplicates++;
    return `duplicate of frame ${before}: ${what}, ${duplicateAnswer(packet)}`;
  }
  const again = isResumed ? 'goes on from the response of' : 'again, as';
  const why = isExpected && wasAskedFor ? ', which the receiver asked for' : '';
  return `${again} frame ${before}${why}: ${what}`;
}

/** Packets are missing before this one. */
function gap(flow: Flow, psn: number, missing: number, what: string): string {
  flow.counts.gaps++;
  const from = psnAdd(psn, -missing);
  const range = psnRange(from, psnAdd(psn, -1));
  if (flow.service === SERVICE_RC) {
    return `${what}, but ${range} never came: dropped, answered with NAK PSN sequence error`;
  }
  flow.expectedPsn = psnAdd(psn, 1);
  return `${what}, but ${range} never came: a message that misses a packet is dropped`;
}

/** What a responder answers to a request that it has carried out before. */
function duplicateAnswer({ flags }: Packet): string {
  if ((flags & OP_READ) !== 0) return 'read and answered again';
  if ((flags & OP_ATOMIC) !== 0) return 'answered from the saved result';
  return 'acknowledged again, not carried out again';
}

function isAskedKind(flags: number): boolean {
  return (flags & ASKED) !== 0;
}

/** Whether a READ request starts inside a READ that was asked before, other than at its start. */
function resumes(flow: Flow, { psn }: Packet): boolean {
  const asked = flow.askedAt(psn);
  return asked !== undefined && asked.psn !== psn;
}

function readPackets(flow: Flow, { dmaBytes }: Packet): number {
  return flow.mtu === 0 ? 1 : Math.max(1, Math.ceil(dmaBytes / flow.mtu));
}

/** Names the operation, and the place of the packet in its message. */
function describeRequest(
  flow: Flow,
  packet: Packet,
  frame: number,
  span: number,
  packets: number,
): string {
  const { flags, psn } = packet;
  const bytes = packet.has(HDR_RETH) ? ` of ${packet.dmaBytes} bytes` : '';
  if (isAskedKind(flags)) {
    const what = `${askedName(packet)}${(flags & (OP_READ | OP_FLUSH)) !== 0 ? bytes : ''}`;
    flow.ask({ psn, packets: span, frame, what, answered: 0 });
    return span > 1 ? `${what}, to be answered in ${span} packets` : what;
  }
  const name = (flags & OP_SEND) !== 0 ? 'SEND' : 'RDMA WRITE';
  const isFirst = (flags & OP_FIRST) !== 0;
  const isLast = (flags & OP_LAST) !== 0;
  if (isFirst && isLast) return `${name}${bytes}`;
  if (isFirst) flow.begin({ what: `${name}${bytes}`, firstPsn: psn, packets });
  const message = flow.messageAt(psn);
  if (message === undefined) return `${isLast ? 'the last' : 'a'} packet of a message, ${name}`;
  const place = psnDistance(psn, message.firstPsn) + 1;
  const of = message.packets > 0 ? ` of ${message.packets}` : '';
  return `packet ${place}${of}, ${message.what}`;
}

function askedName({ flags, opcode }: Packet): string {
  if ((flags & OP_READ) !== 0) return 'RDMA READ';
  if ((flags & OP_FLUSH) !== 0) return 'FLUSH';
  if ((flags & OP_ATOMIC_WRITE) !== 0) return 'ATOMIC WRITE';
  return opcode === RC_COMPARE_SWAP ? 'COMPARE SWAP' : 'FETCH ADD';
}

function answer(flow: Flow, packet: Packet): string {
  const requests = flow.peer;
  if (requests === undefined || requests.firstPsn < 0) {
    return 'answers requests that are not in the capture';
  }
  if (packet.opcode !== RC_ACKNOWLEDGE) return response(requests, packet);
  const { psn, syndrome } = packet;
  if (!requests.hasSent(psn)) return `answers PSN ${psn}, which was not sent`;
  const of = requests.frameOf(psn);
  const named = of === undefined ? `PSN ${psn} (not in the capture)` : `frame ${of}`;
  switch (syndrome & AETH_KIND) {
    case AETH_ACK:
      return acknowledges(requests, psn) ?? `acknowledges ${named} once more`;
    case AETH_RNR_NAK:
      flow.counts.rnrNaks++;
      return `not ready for ${named}: send it again in ${rnrText(syndrome)}${goBack(requests, psn)}`;
    case AETH_NAK:
      flow.counts.naks++;
      if (syndrome === (AETH_NAK | NAK_SEQUENCE)) {
        return `PSN ${psn} is missing: go back to ${named}${goBack(requests, psn)}`;
      }
      return `refuses ${named}: ${nakName(syndrome)}, the work completes with ${nakStatus(syndrome)}${goBack(requests, psn)}`;
    default:
      return `reserved syndrome, about ${named}`;
  }
}

/** A READ response or the result of an atomic. */
function response(requests: Flow, packet: Packet): string {
  const { psn } = packet;
  const asked = requests.askedAt(psn);
  if (asked === undefined) return `answers PSN ${psn}, at which nothing was asked`;
  const place = psnDistance(psn, asked.psn);
  const isAgain = place < asked.answered;
  const isAhead = place > asked.answered;
  if (!isAhead) {
    acknowledges(requests, psn);
    asked.answered = Math.max(asked.answered, place + 1);
  }
  const text = describeResponse(asked, packet, place);
  if (isAgain) return `again: ${text}`;
  return isAhead ? `${text}, but ${missingResponses(asked, place)} never came: dropped` : text;
}

function describeResponse(asked: Asked, packet: Packet, place: number): string {
  const to = `${asked.what} of frame ${asked.frame}`;
  if ((packet.flags & OP_ATOMIC) !== 0) return `result of the ${to}`;
  if (!asked.what.startsWith('RDMA READ')) return `${to} is done`;
  const syndrome = packet.has(HDR_AETH) ? packet.syndrome & AETH_KIND : AETH_ACK;
  const odd = syndrome === AETH_ACK ? '' : ', with a NAK in its AETH';
  return `response ${place + 1} of ${asked.packets}, ${to}${odd}`;
}

function missingResponses({ answered }: Asked, place: number): string {
  return place === answered + 1 ? `response ${place}` : `responses ${answered + 1} to ${place}`;
}

/** What is acknowledged up to `psn` that was not before; undefined: nothing. */
function acknowledges(requests: Flow, psn: number): string | undefined {
  const from = requests.acknowledge(psn);
  if (from === undefined) return undefined;
  const first = requests.frameOf(from);
  const last = requests.frameOf(psn);
  const frames = first === last ? `frame ${last}` : `frames ${first ?? '?'} to ${last ?? '?'}`;
  return `acknowledges ${psnRange(from, psn)} (${frames})`;
}

/** The receiver waits for `psn`; that also acknowledges everything before. */
function goBack(requests: Flow, psn: number): string {
  const text = acknowledges(requests, psnAdd(psn, -1));
  requests.expectedPsn = psn;
  requests.isAskedFor = true;
  return text === undefined ? '' : `; ${text}`;
}

function psnRange(from: number, to: number): string {
  return from === to ? `PSN ${to}` : `PSNs ${from} to ${to}`;
}

function hex(qpn: number): string {
  return `0x${qpn.toString(16).padStart(6, '0')}`;
}
