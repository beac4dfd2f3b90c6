/**
 * Which answers had not reached a captured requester yet when it went back.
 *
 * A host that is busy takes in what has arrived late. But nobody sends again what he knows to be
 * acknowledged: so an answer that acknowledges a PSN which is sent again behind it in the capture
 * reached the requester only after that.
 */

import { psnAdd, psnDistance } from '../../hca/index.ts';
import { OP_ATOMIC, OP_ATOMIC_WRITE, OP_FLUSH, OP_READ } from '../../transport/index.ts';
import type { Packet } from '../capture/packet.ts';
import type { CapturedPacket } from './capture.ts';
import type { Arrival } from './flow.ts';

/** Requests that only an answer of their own acknowledges. */
const ANSWERED = OP_READ | OP_ATOMIC | OP_ATOMIC_WRITE | OP_FLUSH;

interface Taken {
  readonly place: number;
  readonly packet: Packet;
  /** The oldest unacknowledged PSN before it was taken. */
  readonly before: number;
}

/**
 * For each answer that came late, by its place among the arrivals: how many requests had been sent
 * before it was taken.
 */
export function lateAnswers(
  requests: readonly CapturedPacket[],
  arrivals: readonly Arrival[],
  mtu: number,
): Map<number, number> {
  const late = new Map<number, number>();
  const first = requests[0];
  if (first === undefined) return late;
  const follower = new Follower(first.packet.psn);
  let place = 0;
  requests.forEach(({ index, packet }, number) => {
    for (; place < arrivals.length && arrivals[place].index < index; place++) {
      if (arrivals[place].packet.isResponse) follower.take(place, arrivals[place].packet);
    }
    for (const taken of follower.send(packet, mtu)) late.set(taken, number + 1);
  });
  return late;
}

/** What a requester knows: what it has sent, and what of it is acknowledged. */
class Follower {
  private unacked: number;
  private next: number;
  private readonly answered: (readonly [start: number, packets: number])[] = [];
  private taken: Taken[] = [];

  constructor(firstPsn: number) {
    this.unacked = firstPsn;
    this.next = firstPsn;
  }

  take(place: number, packet: Packet): void {
    this.taken.push({ place, packet, before: this.unacked });
    this.acknowledge(packet);
  }

  /** Notes a request; returns the place of the answer from which on all came late, if one did. */
  send(packet: Packet, mtu: number): number[] {
    const { psn } = packet;
    if (psnDistance(psn, this.next) >= 0) {
      const span = packet.span(mtu);
      if ((packet.flags & ANSWERED) !== 0) this.answered.push([psn, span]);
      this.next = psnAdd(psn, span);
      return [];
    }
    if (psnDistance(this.unacked, psn) <= 0) return [];
    // The first answer that made it known that this PSN has arrived.
    let at = this.taken.length - 1;
    while (at > 0 && psnDistance(this.taken[at].before, psn) > 0) at--;
    const again = this.taken.splice(at);
    const [firstLate] = again;
    if (firstLate === undefined) return [];
    this.unacked = firstLate.before;
    for (const { place, packet: answer } of again) this.take(place, answer);
    return [firstLate.place];
  }

  private acknowledge(packet: Packet): void {
    const { psn } = packet;
    if (packet.isRnrNak || psnDistance(psn, this.next) >= 0) return;
    const own = (packet.flags & ANSWERED) !== 0 ? this.rangeOf(psn) : undefined;
    if (own !== undefined) {
      this.advance(own[0]);
      if (this.unacked === psn) this.unacked = psnAdd(psn, 1);
    } else this.advance(packet.isNak ? psn : psnAdd(psn, 1));
  }

  /** Everything before `psn` has arrived, up to the first request whose own answer is missing. */
  private advance(psn: number): void {
    while (psnDistance(psn, this.unacked) > 0) {
      if (this.rangeOf(this.unacked) !== undefined) return;
      this.unacked = psnAdd(this.unacked, 1);
    }
  }

  private rangeOf(psn: number): readonly [start: number, packets: number] | undefined {
    return this.answered.findLast(([start, packets]) => {
      const offset = psnDistance(psn, start);
      return offset >= 0 && offset < packets;
    });
  }
}
