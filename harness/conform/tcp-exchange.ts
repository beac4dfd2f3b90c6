/**
 * Connection exchanges over TCP inside a capture: those of `ibv_*_pingpong` (rdma-core) and of
 * perftest. Both tools tell each other, as text, the number of a queue pair, its first PSN and its
 * address; perftest adds a key and an address of memory.
 *
 * The streams are put together from their segments and read; nothing is answered.
 */
import { get16, get32, IpFrame, PACKET_FOREIGN, PROTOCOL_TCP } from '../../transport/index.ts';
import { gidOfAddress } from './gid.ts';

/** What one side said of one of its queue pairs. */
export interface Introduction {
  readonly gid: string;
  readonly qpn: number;
  readonly sendPsn: number;
  /** Of perftest: memory that the other side may use. */
  readonly memory: { readonly rkey: number; readonly address: number } | undefined;
}

/** Both sides of a connection. */
export type Acquaintance = readonly [Introduction, Introduction];

interface Segment {
  readonly sequence: number;
  readonly data: Uint8Array;
}

interface Stream {
  /** GID and TCP port. */
  readonly from: string;
  readonly to: string;
  readonly segments: Segment[];
}

/** lid:qpn:psn:gid, ended by a zero. */
const PINGPONG = /[0-9a-f]{4}:([0-9a-f]{6}):([0-9a-f]{6}):([0-9a-f]{32})\0/g;
/** lid:out_reads:qpn:psn:rkey:vaddr:gid, byte by byte; perftest 5 and later. */
const PERFTEST =
  /[0-9a-f]{4}:[0-9a-f]{4}:([0-9a-f]{6}):([0-9a-f]{6}):([0-9a-f]{8}):([0-9a-f]{16}):((?:[0-9a-f]{2}:){16})/g;

/** Every connection whose exchange is among `frames` (whole Ethernet frames). */
export function tcpExchanges(frames: readonly Uint8Array[]): Acquaintance[] {
  const streams = new Map<string, Stream>();
  for (const frame of frames) addSegment(streams, frame);
  const found: Acquaintance[] = [];
  for (const stream of streams.values()) {
    const reverse = streams.get(`${stream.to} ${stream.from}`);
    // Each pair of streams is looked at once.
    if (reverse === undefined || stream.from > stream.to) continue;
    const here = introductionsOf(stream);
    const there = introductionsOf(reverse);
    for (let i = 0; i < Math.min(here.length, there.length); i++) {
      found.push([here[i], there[i]]);
    }
  }
  return found;
}

function addSegment(streams: Map<string, Stream>, bytes: Uint8Array): void {
  const ip = new IpFrame();
  const problem = ip.read(bytes, 0, bytes.length);
  if (problem === PACKET_FOREIGN || problem < 0 || ip.protocol !== PROTOCOL_TCP) return;
  const at = ip.payloadAt;
  if (ip.payloadEnd - at < 20) return;
  const data = bytes.subarray(at + (bytes[at + 12] >>> 4) * 4, ip.payloadEnd);
  if (data.length === 0) return;
  const addressBytes = ip.version === 6 ? 16 : 4;
  const from = `${gidOfAddress(ip.source.subarray(0, addressBytes))} ${get16(bytes, at)}`;
  const to = `${gidOfAddress(ip.dest.subarray(0, addressBytes))} ${get16(bytes, at + 2)}`;
  const key = `${from} ${to}`;
  const stream = streams.get(key) ?? { from, to, segments: [] };
  streams.set(key, stream);
  stream.segments.push({ sequence: get32(bytes, at + 4), data });
}

/** The bytes of a stream, as far as there is no gap, one character each. */
function textOf({ segments }: Stream): string {
  const first = (segments[0] as Segment).sequence;
  const distance = ({ sequence }: Segment): number => (sequence - first) | 0;
  const ordered = [...segments].sort((a, b) => distance(a) - distance(b));
  let text = '';
  let next = distance(ordered[0] as Segment);
  for (const segment of ordered) {
    const skip = next - distance(segment);
    if (skip < 0) break;
    const fresh = segment.data.subarray(skip);
    for (const byte of fresh) text += String.fromCharCode(byte);
    next += fresh.length;
  }
  return text;
}

/** What this side said, each queue pair once, in order. */
function introductionsOf(stream: Stream): Introduction[] {
  const text = textOf(stream);
  const host = stream.from.split(' ')[0] as string;
  const said: Introduction[] = [];
  const add = (introduction: Introduction): void => {
    // ibv_srq_pingpong sends an empty place behind the ones it uses.
    const isNew = introduction.qpn !== 0 && !said.some(({ qpn }) => qpn === introduction.qpn);
    if (isNew) said.push(introduction);
  };
  for (const [, qpn, psn, gid] of text.matchAll(PINGPONG) as Iterable<string[]>) {
    const isKnown = !/^0+$/.test(gid as string);
    add({
      gid: isKnown ? (gid as string) : host,
      qpn: hex(qpn),
      sendPsn: hex(psn),
      memory: undefined,
    });
  }
  for (const [, qpn, psn, rkey, address, gid] of text.matchAll(PERFTEST) as Iterable<string[]>) {
    add({
      gid: (gid as string).replaceAll(':', ''),
      qpn: hex(qpn),
      sendPsn: hex(psn),
      memory: { rkey: hex(rkey), address: hex(address) },
    });
  }
  return said;
}

function hex(digits: string | undefined): number {
  return Number.parseInt(digits ?? '', 16);
}
