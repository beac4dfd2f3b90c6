/**
 * The first pass over a capture: which flows there are, which two are the directions of a connection,
 * what their path MTU is, and how many packets each message has.
 *
 * A packet does not say which queue pair it comes from. But the PSN of an answer is one of a request
 * that went the other way before, and most senders use one UDP source port for both directions.
 */
import { psnDistance } from '../../hca/index.ts';
import {
  OP_FIRST,
  OP_LAST,
  OP_PAYLOAD,
  OP_READ,
  OP_REQUEST,
  OP_RESPONSE,
  OP_SEND,
  OP_WRITE,
  opFlags,
  SERVICE_RC,
} from '../../transport/index.ts';
import { type Flow, Flows } from './flow.ts';
import type { Sighting } from './frame-reader.ts';

/** The most PSNs that an answer may be behind the last request. */
const WINDOW = 1 << 16;
/** What a common UDP port counts for, in answers. */
const SAME_PORT_WEIGHT = 4;

/** The PSNs that a flow has asked for so far. */
interface Asking {
  readonly flow: Flow;
  first: number;
  last: number;
  port: number;
}

export class Survey {
  readonly flows = new Flows();
  private readonly asking = new Map<Flow, Asking>();
  /** How well each flow of answers goes with each flow of requests. */
  private readonly votes = new Map<Flow, Map<Flow, number>>();

  /** Packets of the message that starts in a frame. */
  private readonly messagePackets = new Map<number, number>();
  /** The frame and PSN in which the last message of a flow started. */
  private readonly starts = new Map<Flow, { frame: number; psn: number }>();

  /** Packets of the message that starts in frame `frame`; 0: it does not end in this capture. */
  packetsOfMessage(frame: number): number {
    return this.messagePackets.get(frame) ?? 0;
  }

  note({ source, dest, port, packet }: Sighting, frame: number): void {
    const flow = this.flows.of(source, dest, packet.destQpn, packet.service);
    const flags = opFlags[packet.opcode];
    const isBetween = (flags & OP_PAYLOAD) !== 0 && (flags & OP_LAST) === 0;
    if (isBetween && packet.payload.length > 0) flow.mtu = packet.payload.length;
    if ((flags & (OP_SEND | OP_WRITE)) !== 0) this.measure(flow, packet.psn, flags, frame);
    if (packet.service !== SERVICE_RC) return;
    if ((flags & OP_RESPONSE) !== 0) this.vote(flow, packet.psn, port);
    else this.ask(flow, packet.psn, port, packet.dmaBytes, flags);
  }

  /** Pairs the flows; call it once, after the last packet. */
  finish(): void {
    for (const [flow, candidates] of this.votes) {
      const ranked = [...candidates].sort(([, a], [, b]) => b - a);
      const best = ranked.find(([other]) => other.peer === undefined || other.peer === flow)?.[0];
      if (best === undefined || flow.peer !== undefined) continue;
      flow.peer = best;
      best.peer = flow;
    }
    for (const flow of this.flows.all) if (flow.mtu === 0) flow.mtu = flow.peer?.mtu ?? 0;
  }

  private measure(flow: Flow, psn: number, flags: number, frame: number): void {
    if ((flags & OP_FIRST) !== 0) this.starts.set(flow, { frame, psn });
    const start = this.starts.get(flow);
    if ((flags & OP_LAST) === 0 || start === undefined) return;
    const packets = psnDistance(psn, start.psn) + 1;
    if (packets > 0) this.messagePackets.set(start.frame, packets);
  }

  private ask(flow: Flow, psn: number, port: number, dmaBytes: number, flags: number): void {
    const isRead =
      (flags & (OP_REQUEST | OP_READ | OP_FIRST)) === (OP_REQUEST | OP_READ | OP_FIRST);
    const last = isRead ? psn + Math.ceil(dmaBytes / 256) : psn;
    const asking = this.asking.get(flow);
    if (asking === undefined) this.asking.set(flow, { flow, first: psn, last, port });
    else if (psnDistance(last, asking.last) > 0) asking.last = last;
  }

  private vote(flow: Flow, psn: number, port: number): void {
    for (const asking of this.asking.values()) {
      if (asking.flow.source !== flow.dest || asking.flow.dest !== flow.source) continue;
      const behind = psnDistance(asking.last, psn);
      if (behind < 0 || behind > WINDOW || psnDistance(psn, asking.first) < 0) continue;
      const votes = this.votes.get(flow) ?? new Map<Flow, number>();
      const weight = asking.port === port ? SAME_PORT_WEIGHT : 1;
      votes.set(asking.flow, (votes.get(asking.flow) ?? 0) + weight);
      this.votes.set(flow, votes);
    }
  }
}
