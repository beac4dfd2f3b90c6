/**
 * The part of a capture that one queue pair took part in: what reached it, in order, and what it sent.
 *
 * Also what can be said of it before anything is replayed: which requests the captured host turned
 * away for want of a receive, and at which packets messages began and ended.
 */

import { psnAdd, psnDistance } from '../../hca/index.ts';
import {
  OP_ATOMIC,
  OP_FIRST,
  OP_IMMEDIATE,
  OP_LAST,
  OP_READ,
  OP_SEND,
  OP_WRITE,
  QPT_RC,
  QPT_UC,
  QPT_UD,
  SERVICE_MASK,
  SERVICE_RC,
  SERVICE_UC,
  SERVICE_UD,
} from '../../transport/index.ts';
import type { Packet } from '../capture/packet.ts';
import type { CapturedPacket } from './capture.ts';
import type { QueuePairSetup } from './setup.ts';

const serviceOf: Readonly<Record<number, number>> = {
  [QPT_RC]: SERVICE_RC,
  [QPT_UC]: SERVICE_UC,
  [QPT_UD]: SERVICE_UD,
};

/** One arrival at the queue pair. */
export interface Arrival {
  readonly captured: CapturedPacket;
  /** What arrived: the captured packet, or what the hub made of it. */
  readonly packet: Packet;
  /** Place of its delivery among the packets of the capture: behind that packet. */
  readonly index: number;
}

export interface Flow {
  readonly setup: QueuePairSetup;
  readonly arrivals: readonly Arrival[];
  readonly requests: readonly CapturedPacket[];
  readonly answers: readonly CapturedPacket[];
  readonly receives: ReceiveUse;
  /** READs and atomics that arrived while max_dest_rd_atomic others were not answered, by place. */
  readonly readsBeyond: ReadonlySet<number>;
}

/** How the captured host used its receives. */
export interface ReceiveUse {
  /** Index at which message number i that takes a receive began to take it, and ended. */
  readonly starts: readonly number[];
  readonly ends: readonly number[];
  /** What it brought: of a WRITE nothing. */
  readonly messages: readonly Uint8Array[];
  /** Requests turned away with an RNR NAK: their arrival, and how many receives had been taken. */
  readonly refusals: readonly { readonly arrival: number; readonly taken: number }[];
  /** Of RC: requests that had been taken before, by place. */
  readonly duplicates: ReadonlySet<number>;
  /** Of UC: packets of messages that rxe drops because an earlier one was cut off, by place. */
  readonly beyondGap: ReadonlySet<number>;
  /** Arrivals at which a fresh message takes a receive: by place in `arrivals`. */
  readonly takes: ReadonlySet<number>;
}

/** Whether the queue pair sent this packet. */
export function isFrom(setup: QueuePairSetup, captured: CapturedPacket): boolean {
  const { packet } = captured;
  if (captured.source !== setup.gid || !isOfService(setup, packet)) return false;
  if (setup.type === QPT_UD) return packet.sourceQpn === setup.qpn;
  return setup.connections.some(
    ({ remoteGid, remoteQpn }) => remoteGid === captured.dest && remoteQpn === packet.destQpn,
  );
}

/** Whether this packet was for the queue pair. */
export function isFor(setup: QueuePairSetup, captured: CapturedPacket): boolean {
  return captured.dest === setup.gid && captured.packet.destQpn === setup.qpn;
}

/** What the queue pair sent, and what reached it as `deliver` says. */
export function flowOf(
  setup: QueuePairSetup,
  packets: readonly CapturedPacket[],
  arrivals: readonly Arrival[],
): Flow {
  const sent = packets.filter((captured) => isFrom(setup, captured));
  const answers = sent.filter(({ packet }) => packet.isResponse);
  return {
    setup,
    arrivals,
    requests: sent.filter(({ packet }) => !packet.isResponse),
    answers,
    receives: receiveUse(setup, arrivals, answers),
    readsBeyond: readsBeyond(setup, arrivals, answers),
  };
}

/** Requests that the captured host had to answer beside more others than it had said it would. */
function readsBeyond(
  { type, connections }: QueuePairSetup,
  arrivals: readonly Arrival[],
  answers: readonly CapturedPacket[],
): Set<number> {
  const beyond = new Set<number>();
  const [connection] = connections;
  if (type !== QPT_RC || connection === undefined) return beyond;
  const { mtu, maxDestRdAtomic } = connection;
  /** Index of the packet that ended the answer to each request. */
  const ends = new Map<number, number>();
  arrivals.forEach(({ packet, index }, place) => {
    if (packet.isResponse || (packet.flags & (OP_READ | OP_ATOMIC)) === 0) return;
    const last = psnAdd(packet.psn, packet.span(mtu) - 1);
    const end = answers.find((answer) => answer.index > index && answer.packet.psn === last);
    let open = 0;
    for (const [psn, at] of ends) if (psn !== packet.psn && at > index) open++;
    if (end === undefined) return;
    if (open >= maxDestRdAtomic) beyond.add(place);
    ends.set(packet.psn, end.index);
  });
  return beyond;
}

function isOfService({ type }: QueuePairSetup, packet: Packet): boolean {
  return (packet.opcode & SERVICE_MASK) === serviceOf[type];
}

/** Follows the requests as a responder does whose decisions the captured answers show. */
function receiveUse(
  setup: QueuePairSetup,
  arrivals: readonly Arrival[],
  answers: readonly CapturedPacket[],
): ReceiveUse {
  const starts: number[] = [];
  const ends: number[] = [];
  const messages: Uint8Array[] = [];
  let pieces: Uint8Array[] = [];
  const refusals: { arrival: number; taken: number }[] = [];
  const takes = new Set<number>();
  const beyondGap = new Set<number>();
  const duplicates = new Set<number>();
  const used = new Set<number>();
  const connection = setup.connections[0];
  const mtu = connection?.mtu ?? 1024;
  let expected = connection?.receivePsn ?? 0;
  const unreliable = new UnreliableResponder(expected);
  arrivals.forEach(({ packet, index }, place) => {
    if (packet.isResponse || !isOfService(setup, packet)) return;
    if (setup.type === QPT_UC && !unreliable.takes(packet)) {
      if (unreliable.isLost) beyondGap.add(place);
      if (unreliable.hasGivenBack) starts.pop();
      return;
    }
    if (setup.type === QPT_RC && packet.psn !== expected) {
      if (psnDistance(packet.psn, expected) < 0) duplicates.add(place);
      return;
    }
    const isSend = (packet.flags & OP_SEND) !== 0;
    const takesReceive = isSend
      ? (packet.flags & OP_FIRST) !== 0
      : (packet.flags & (OP_LAST | OP_IMMEDIATE)) === (OP_LAST | OP_IMMEDIATE);
    if (setup.type === QPT_RC && takesReceive && isRefused(packet, index, answers, used)) {
      refusals.push({ arrival: place, taken: starts.length });
      return;
    }
    if (takesReceive) {
      starts.push(index);
      takes.add(place);
    }
    if (isSend && takesReceive) pieces = [];
    if (isSend) pieces.push(packet.payload);
    if ((isSend || takesReceive) && packet.isLast) {
      ends.push(index);
      messages.push(concatenate(pieces));
      pieces = [];
    }
    expected = psnAdd(packet.psn, packet.span(mtu));
  });
  return { starts, ends, messages, refusals, duplicates, beyondGap, takes };
}

/**
 * What rxe's UC responder takes. A message starts anew at any PSN; but one that starts where the last
 * packets of another were lost is dropped as well, and after a WRITE that was cut off, everything is.
 */
class UnreliableResponder {
  /** The last packet was dropped although it was of a message that started whole. */
  isLost = false;
  /** The receive of the message that was cut off is free again. */
  hasGivenBack = false;
  private openKind = 0;
  private isDropping = false;

  constructor(private expected: number) {}

  takes(packet: Packet): boolean {
    const { flags, psn } = packet;
    const isStart = (flags & OP_FIRST) !== 0;
    this.hasGivenBack = false;
    if (psn !== this.expected || this.isDropping) {
      if (!isStart) {
        this.isDropping = true;
        return false;
      }
      if (this.openKind !== 0) {
        this.isLost = true;
        this.isDropping = true;
        this.hasGivenBack = this.openKind === OP_SEND;
        if (this.hasGivenBack) this.openKind = 0;
        return false;
      }
    }
    this.isLost = false;
    this.isDropping = false;
    this.expected = psnAdd(psn, 1);
    this.openKind = packet.isLast ? 0 : flags & (OP_SEND | OP_WRITE);
    return true;
  }
}

/**
 * Whether the captured host answered the request that arrived at `index` with an RNR NAK: it did if
 * that comes before any answer which says that it was taken. `used` has the RNR NAKs already spoken for.
 */
function isRefused(
  packet: Packet,
  index: number,
  answers: readonly CapturedPacket[],
  used: Set<number>,
): boolean {
  for (const { index: at, packet: answer } of answers) {
    if (at < index || used.has(at) || answer.isNak) continue;
    if (answer.isRnrNak) {
      if (answer.psn !== packet.psn) continue;
      used.add(at);
      return true;
    }
    if (psnDistance(answer.psn, packet.psn) >= 0) return false;
  }
  return false;
}

function concatenate(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
