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

const GSI_QPN = 1;
const MAD_BYTES = 256;
const MAD_HEADER_BYTES = 24;
const CLASS_CM = 7;
const ATTRIBUTE_REQ = 0x10;
const ATTRIBUTE_REP = 0x13;

/** Every connection of which both messages are in the capture. */
export function cmExchanges(packets: readonly CapturedPacket[]): CmConnection[] {
  const requests = new Map<number, CapturedPacket>();
  const found: CmConnection[] = [];
  const seen = new Set<string>();
  for (const captured of packets) {
    const { packet } = captured;
    const mad = packet.data;
    if (packet.service !== SERVICE_UD || packet.destQpn !== GSI_QPN) continue;
    if (mad.length < MAD_BYTES || mad[1] !== CLASS_CM) continue;
    const data = mad.subarray(MAD_HEADER_BYTES);
    const attribute = get16(mad, 16);
    if (attribute === ATTRIBUTE_REQ) requests.set(get32(data, 0), captured);
    if (attribute !== ATTRIBUTE_REP) continue;
    const request = requests.get(get32(data, 4));
    if (request === undefined) continue;
    const connection = connectionOf(request, captured);
    // Both messages are sent again when an answer is lost.
    const key = connection.sides.map(({ gid, qpn }) => `${gid} ${qpn}`).join(' ');
    if (!seen.has(key)) found.push(connection);
    seen.add(key);
  }
  return found;
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
