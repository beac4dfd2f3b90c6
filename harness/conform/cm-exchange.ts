/**
 * Connections made by the communication manager (rdma_cm): its REQ and REP messages, datagrams to
 * queue pair 1, are decoded; nothing is answered.
 *
 * Source: IBTA volume 1, chapter 12, as in Linux drivers/infiniband/core/cm_msgs.h.
 */
import { get16, get24, get32, SERVICE_UD } from '../../transport/index.ts';
import type { CapturedPacket } from './capture.ts';

/** One side of a connection that a REQ and a REP made. */
export interface CmSide {
  readonly gid: string;
  readonly qpn: number;
  /** The first PSN that it takes: the other side sends it. */
  readonly receivePsn: number;
  readonly maxRdAtomic: number;
  readonly maxDestRdAtomic: number;
  /** What the *other* side keeps to when this one is not ready. */
  readonly rnrRetry: number;
}

export interface CmConnection {
  readonly sides: readonly [CmSide, CmSide];
  readonly mtu: number;
  readonly retry: number;
  readonly pkey: number;
}

/** A datagram service that a SIDR_REP named. */
export interface CmService {
  readonly gid: string;
  readonly qpn: number;
  readonly qkey: number;
}

const GSI_QPN = 1;
const MAD_BYTES = 256;
const MAD_HEADER_BYTES = 24;
const CLASS_CM = 7;
const ATTRIBUTE_REQ = 0x10;
const ATTRIBUTE_REP = 0x13;
const ATTRIBUTE_SIDR_REP = 0x18;

/** Every datagram queue pair that a service ID was resolved to. */
export function cmServices(packets: readonly CapturedPacket[]): CmService[] {
  const found = new Map<string, CmService>();
  for (const captured of packets) {
    const data = cmMessage(captured, ATTRIBUTE_SIDR_REP);
    if (data === undefined || data[4] !== 0) continue;
    const service = { gid: captured.source, qpn: get24(data, 8), qkey: get32(data, 20) };
    found.set(`${service.gid} ${service.qpn}`, service);
  }
  return [...found.values()];
}

/** Every connection of which both messages are in the capture. */
export function cmExchanges(packets: readonly CapturedPacket[]): CmConnection[] {
  const requests = new Map<number, CapturedPacket>();
  const found: CmConnection[] = [];
  const seen = new Set<string>();
  for (const captured of packets) {
    const asked = cmMessage(captured, ATTRIBUTE_REQ);
    if (asked !== undefined) requests.set(get32(asked, 0), captured);
    const answered = cmMessage(captured, ATTRIBUTE_REP);
    if (answered === undefined) continue;
    const request = requests.get(get32(answered, 4));
    if (request === undefined) continue;
    const connection = connectionOf(request, captured);
    // Both messages are sent again when an answer is lost.
    const key = connection.sides.map(({ gid, qpn }) => `${gid} ${qpn}`).join(' ');
    if (!seen.has(key)) found.push(connection);
    seen.add(key);
  }
  return found;
}

/** What a management datagram with this attribute says; undefined where it is another packet. */
function cmMessage({ packet }: CapturedPacket, attribute: number): Uint8Array | undefined {
  const mad = packet.data;
  if (packet.service !== SERVICE_UD || packet.destQpn !== GSI_QPN) return undefined;
  if (mad.length < MAD_BYTES || mad[1] !== CLASS_CM || get16(mad, 16) !== attribute)
    return undefined;
  return mad.subarray(MAD_HEADER_BYTES);
}

function connectionOf(request: CapturedPacket, reply: CapturedPacket): CmConnection {
  const req = request.packet.data.subarray(MAD_HEADER_BYTES);
  const rep = reply.packet.data.subarray(MAD_HEADER_BYTES);
  const active: CmSide = {
    gid: request.source,
    qpn: get24(req, 32),
    receivePsn: get24(req, 44),
    maxRdAtomic: req[39],
    maxDestRdAtomic: req[35],
    rnrRetry: req[50] & 7,
  };
  const passive: CmSide = {
    gid: reply.source,
    qpn: get24(rep, 12),
    receivePsn: get24(rep, 20),
    maxRdAtomic: rep[25],
    maxDestRdAtomic: rep[24],
    rnrRetry: rep[27] >>> 5,
  };
  return {
    sides: [active, passive],
    mtu: 128 << (req[50] >>> 4),
    retry: req[47] & 7,
    pkey: get16(req, 48),
  };
}
