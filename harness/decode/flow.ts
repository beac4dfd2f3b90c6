/**
 * A flow: the packets from one port to one queue pair, and what is known of the requests among them.
 *
 * Packets name only the queue pair that they go to. Which flow comes back from there is found out in
 * a first pass over the capture (`survey.ts`).
 */
import { psnAdd, psnDistance } from '../../hca/index.ts';

/** A READ, atomic, FLUSH or ATOMIC WRITE: a request that something other than an ACK answers. */
export interface Asked {
  readonly psn: number;
  /** PSNs that it takes: packets of its response. */
  readonly packets: number;
  readonly frame: number;
  readonly what: string;
  /** Packets of the response that were seen, in order. */
  answered: number;
}

/** A message of several packets. */
interface Message {
  readonly what: string;
  readonly firstPsn: number;
  /** Packets that it has; 0: not known. */
  readonly packets: number;
}

/** Messages and requests that are kept to tell what a later packet belongs to. */
const KEPT = 1024;

/** Events of a flow, for the summary. */
export interface FlowCounts {
  packets: number;
  payloadBytes: number;
  retransmitted: number;
  duplicates: number;
  gaps: number;
  naks: number;
  rnrNaks: number;
  wrongIcrcs: number;
}

export class Flow {
  /** The flow that comes back; undefined where the capture shows none. */
  peer: Flow | undefined = undefined;
  /** Bytes of a packet that is not the last of its message; 0: not known. */
  mtu = 0;
  readonly counts: FlowCounts = {
    packets: 0,
    payloadBytes: 0,
    retransmitted: 0,
    duplicates: 0,
    gaps: 0,
    naks: 0,
    rnrNaks: 0,
    wrongIcrcs: 0,
  };
  /** PSNs of requests: the first and the one behind the last that were sent; -1: none yet. */
  firstPsn = -1;
  endPsn = -1;
  /** The PSN that the receiver waits for, as far as its answers let one know. */
  expectedPsn = -1;
  /** The last PSN that was acknowledged; -1: none. */
  ackedPsn = -1;
  /** Whether the receiver has asked for what it expects (NAK, RNR NAK). */
  isAskedFor = false;
  private readonly messages: Message[] = [];
  private readonly asked: Asked[] = [];
  /** The last frame with each PSN. */
  private readonly frames = new Map<number, number>();

  constructor(
    readonly source: string,
    readonly dest: string,
    readonly qpn: number,
    /** SERVICE_* of its packets. */
    readonly service: number,
  ) {}

  /** Whether `psn` is one of a request that was sent, or must have been. */
  hasSent(psn: number): boolean {
    return psnDistance(psn, this.firstPsn) >= 0 && psnDistance(psn, this.endPsn) < 0;
  }

  frameOf(psn: number): number | undefined {
    return this.frames.get(psn);
  }

  /** Takes note that frame `frame` sent `packets` PSNs from `psn` on. */
  sent(psn: number, packets: number, frame: number): void {
    for (let i = 0; i < packets; i++) this.frames.set(psnAdd(psn, i), frame);
    const end = psnAdd(psn, packets);
    if (this.firstPsn < 0) this.firstPsn = psn;
    if (this.endPsn < 0 || psnDistance(end, this.endPsn) > 0) this.endPsn = end;
  }

  /** Takes note that everything up to `psn` is acknowledged; returns the first PSN that is so only now. */
  acknowledge(psn: number): number | undefined {
    const from = this.ackedPsn < 0 ? this.firstPsn : psnAdd(this.ackedPsn, 1);
    if (psnDistance(psn, from) < 0) return undefined;
    this.ackedPsn = psn;
    if (psnDistance(psn, this.expectedPsn) >= 0) this.expectedPsn = psnAdd(psn, 1);
    return from;
  }

  isAcknowledged(psn: number): boolean {
    return this.ackedPsn >= 0 && psnDistance(psn, this.ackedPsn) <= 0;
  }

  /** A message starts; sent again, it takes the place of what it was. */
  begin(message: Message): void {
    this.messages.push(message);
    if (this.messages.length > KEPT) this.messages.shift();
  }

  /** The message that `psn` belongs to; the latest of them. */
  messageAt(psn: number): Message | undefined {
    return this.messages.findLast((m) => isWithin(psn, m.firstPsn, m.packets));
  }

  ask(asked: Asked): void {
    this.asked.push(asked);
    if (this.asked.length > KEPT) this.asked.shift();
  }

  /** The request whose response takes `psn`; the latest of them. */
  askedAt(psn: number): Asked | undefined {
    return this.asked.findLast((a) => isWithin(psn, a.psn, a.packets));
  }
}

/** Whether `psn` is one of `packets` (0: any number) from `first` on. */
function isWithin(psn: number, first: number, packets: number): boolean {
  const into = psnDistance(psn, first);
  return into >= 0 && (packets === 0 || into < packets);
}

/** Flows by where they come from and go to. */
export class Flows {
  private readonly byKey = new Map<string, Flow>();

  /** The flow of such packets, made when it is not there yet. */
  of(source: string, dest: string, qpn: number, service: number): Flow {
    const key = `${service} ${qpn} ${source} ${dest}`;
    let flow = this.byKey.get(key);
    if (flow === undefined) {
      flow = new Flow(source, dest, qpn, service);
      this.byKey.set(key, flow);
    }
    return flow;
  }

  get all(): readonly Flow[] {
    return [...this.byKey.values()];
  }
}
