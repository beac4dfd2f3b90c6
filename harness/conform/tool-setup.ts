/**
 * Queue pairs of tools whose connection exchange is in the capture: its numbers from the exchange,
 * the rest from what the captured hosts took and answered.
 */

import { NAK_REMOTE_ACCESS } from '../../hca/index.ts';
import { PAGE_BYTES } from '../../kernel/index.ts';
import {
  ACCESS_FLUSH_GLOBAL,
  ACCESS_FLUSH_PERSISTENT,
  ACCESS_LOCAL_WRITE,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  HDR_ATOMICETH,
  HDR_RETH,
  OP_FIRST,
  OP_LAST,
  QPT_RC,
  QPT_UC,
  QPT_UD,
  SERVICE_UC,
  SERVICE_UD,
} from '../../transport/index.ts';
import type { Capture, CapturedPacket } from './capture.ts';
import { cmExchanges, cmServices } from './cm-exchange.ts';
import type { ConnectionSetup, QueuePairSetup, RegionSetup } from './setup.ts';
import { type Introduction, tcpExchanges } from './tcp-exchange.ts';

/** What ibv_*_pingpong and perftest give their queue pairs. */
const TIMEOUT = 14;
const RETRY = 7;
const MIN_RNR_TIMER = 12;
const RD_ATOMIC = 16;
const QKEY = 0x11111111;
const QUEUE_ENTRIES = 1024;
const REMOTE_ACCESS =
  ACCESS_LOCAL_WRITE |
  ACCESS_REMOTE_READ |
  ACCESS_REMOTE_WRITE |
  ACCESS_REMOTE_ATOMIC |
  ACCESS_FLUSH_GLOBAL |
  ACCESS_FLUSH_PERSISTENT;
const DEFAULT_MTU = 1024;

/** What an exchange says of one side of a connection. */
interface Side extends Introduction {
  readonly receivePsn: number;
  readonly maxRdAtomic: number;
  readonly maxDestRdAtomic: number;
  readonly rnrRetry: number;
  readonly retry: number;
  /** Of datagrams, where it was exchanged. */
  readonly qkey?: number;
}

/** The queue pairs of every connection that the capture shows being made. */
export function toolSetups(capture: Capture): QueuePairSetup[] {
  const pairs: (readonly [Side, Side, number])[] = [];
  for (const [a, b] of tcpExchanges(capture.others)) {
    const common = {
      maxRdAtomic: RD_ATOMIC,
      maxDestRdAtomic: RD_ATOMIC,
      rnrRetry: RETRY,
      retry: RETRY,
    };
    pairs.push([
      { ...a, ...common, receivePsn: b.sendPsn },
      { ...b, ...common, receivePsn: a.sendPsn },
      DEFAULT_MTU,
    ]);
  }
  for (const { sides, mtu, retry } of cmExchanges(capture.packets)) {
    const [a, b] = sides;
    pairs.push([
      { ...a, retry, memory: undefined, sendPsn: b.receivePsn },
      { ...b, retry, memory: undefined, sendPsn: a.receivePsn },
      mtu,
    ]);
  }
  pairs.push(...datagramPairs(capture.packets));
  return pairs.flatMap(([a, b, mtu]) => {
    const between = capture.packets.filter((packet) => isTo(packet, a, b) || isTo(packet, b, a));
    return [setupOf(a, b, mtu, between), setupOf(b, a, mtu, between)];
  });
}

/** Datagram services with each queue pair that sent to them: it names itself in every datagram. */
function datagramPairs(packets: readonly CapturedPacket[]): (readonly [Side, Side, number])[] {
  const common = {
    sendPsn: 0,
    receivePsn: 0,
    memory: undefined,
    maxRdAtomic: 0,
    maxDestRdAtomic: 0,
    rnrRetry: RETRY,
    retry: RETRY,
  };
  return cmServices(packets).flatMap(({ gid, qpn, qkey }) => {
    const service: Side = { ...common, gid, qpn, qkey };
    const clients = new Map<string, Side>();
    for (const { source, dest, packet } of packets) {
      if (dest !== gid || packet.destQpn !== qpn || packet.service !== SERVICE_UD) continue;
      const client = { ...common, gid: source, qpn: packet.sourceQpn, qkey };
      clients.set(`${source} ${packet.sourceQpn}`, client);
    }
    return [...clients.values()].map((client) => [client, service, DEFAULT_MTU] as const);
  });
}

function isTo({ source, dest, packet }: CapturedPacket, from: Side, to: Side): boolean {
  return source === from.gid && dest === to.gid && packet.destQpn === to.qpn;
}

function setupOf(
  side: Side,
  remote: Side,
  exchangedMtu: number,
  between: readonly CapturedPacket[],
): QueuePairSetup {
  const { gid, qpn, sendPsn } = side;
  const service = between[0]?.packet.service;
  const type = service === SERVICE_UC ? QPT_UC : service === SERVICE_UD ? QPT_UD : QPT_RC;
  const rnrNak = between.find(
    (captured) => isTo(captured, side, remote) && captured.packet.isRnrNak,
  );
  const connection: ConnectionSetup = {
    remoteGid: remote.gid,
    remoteQpn: remote.qpn,
    receivePsn: side.receivePsn,
    mtu: mtuOf(between, exchangedMtu),
    timeout: TIMEOUT,
    retry: side.retry,
    rnrRetry: remote.rnrRetry,
    minRnrTimer: rnrNak === undefined ? MIN_RNR_TIMER : rnrNak.packet.syndromeValue,
    maxRdAtomic: side.maxRdAtomic,
    maxDestRdAtomic: side.maxDestRdAtomic,
    qkey: side.qkey ?? QKEY,
    access: REMOTE_ACCESS,
  };
  return {
    name: `QP 0x${qpn.toString(16)} of ${gidText(gid)}`,
    gid,
    qpn,
    type,
    sendPsn,
    sendEntries: QUEUE_ENTRIES,
    receiveEntries: QUEUE_ENTRIES,
    sigAll: false,
    regions: regionsOf(side, remote, between),
    program: undefined,
    connections: [connection],
  };
}

/** The payload of first and middle packets is the path MTU; without any, it is at least the largest. */
function mtuOf(packets: readonly CapturedPacket[], exchanged: number): number {
  let largest = exchanged;
  for (const { packet } of packets) {
    const position = packet.flags & (OP_FIRST | OP_LAST);
    const bytes = packet.payload.length;
    if (packet.service === SERVICE_UD) largest = Math.max(largest, 4096);
    else if (position === (OP_FIRST | OP_LAST)) largest = Math.max(largest, mtuAbove(bytes));
    else if (position !== OP_LAST && bytes > 0) return bytes;
  }
  return largest;
}

function mtuAbove(bytes: number): number {
  let mtu = 256;
  while (mtu < bytes) mtu *= 2;
  return mtu;
}

/** Memory that the remote side used and this host let it use: whole pages, one region for each key. */
function regionsOf(side: Side, remote: Side, between: readonly CapturedPacket[]): RegionSetup[] {
  const refused = new Set<number>();
  for (const captured of between) {
    const { packet } = captured;
    if (
      isTo(captured, side, remote) &&
      packet.isNak &&
      packet.syndromeValue === NAK_REMOTE_ACCESS
    ) {
      refused.add(packet.psn);
    }
  }
  const ranges = new Map<number, { start: number; end: number }>();
  const use = (rkey: number, start: number, end: number): void => {
    const range = ranges.get(rkey);
    if (range === undefined) ranges.set(rkey, { start, end });
    else {
      range.start = Math.min(range.start, start);
      range.end = Math.max(range.end, end);
    }
  };
  if (side.memory) use(side.memory.rkey, side.memory.address, side.memory.address + 1);
  for (const captured of between) {
    const { packet } = captured;
    if (!isTo(captured, remote, side) || refused.has(packet.psn)) continue;
    if (packet.has(HDR_ATOMICETH)) use(packet.rkey, packet.address, packet.address + 8);
    else if (packet.has(HDR_RETH) && packet.dmaBytes > 0) {
      use(packet.rkey, packet.address, packet.address + packet.dmaBytes);
    }
  }
  return [...ranges].map(([rkey, { start, end }], id) => {
    const address = Math.floor(start / PAGE_BYTES) * PAGE_BYTES;
    const length = Math.ceil(end / PAGE_BYTES) * PAGE_BYTES - address;
    return { id, address, length, lkey: rkey, rkey, access: REMOTE_ACCESS, isOnDemand: false };
  });
}

/** A GID for people. */
export function gidText(gid: string): string {
  if (gid.startsWith('00000000000000000000ffff')) {
    return (gid.slice(24).match(/../g) ?? []).map((byte) => Number.parseInt(byte, 16)).join('.');
  }
  return (gid.match(/..../g) ?? []).join(':');
}
