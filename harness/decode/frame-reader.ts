/**
 * One captured frame as plain data: a packet with its addresses and what is odd about it, something
 * that is not for an RDMA adapter, or a packet that cannot be read.
 */
import {
  BlockPool,
  type CapturedFrame,
  decodeNative,
  decodeRoce,
  ERF_ETHERNET,
  ERF_INFINIBAND,
  Failure,
  FramePool,
  LINK_ERF,
  LINK_ETHERNET,
  LINK_INFINIBAND,
  LINK_IPV4,
  LINK_IPV6,
  LINK_RAW,
  NativeHeader,
  PACKET_FOREIGN,
  PACKET_TRUNCATED,
  PROTOCOL_UDP,
  packetProblem,
  placeOf,
  RoceHeader,
  readErf,
  rxeIcrcRules,
} from '../../transport/index.ts';
import { Packet } from '../capture/packet.ts';
import { describeOther } from './other-protocols.ts';

/** A packet of a capture and where it went. */
export interface Sighting {
  readonly kind: 'packet';
  /** IP addresses, or `LID 1`. */
  readonly source: string;
  readonly dest: string;
  readonly network: 'RoCEv2' | 'InfiniBand';
  /** UDP source port; 0 on InfiniBand. */
  readonly port: number;
  readonly packet: Packet;
  /** `ok`, the name of the rule by which it is, or `wrong`. */
  readonly icrc: string;
  /** Whatever else the specification has otherwise. */
  readonly oddities: readonly string[];
}

/** Anything else: what there is to say about it. */
export interface Remark {
  readonly kind: 'other' | 'malformed';
  readonly source: string;
  readonly dest: string;
  readonly text: string;
}

export type Reading = Sighting | Remark;

const ICRC_WRONG = 'wrong';
const rawLinks: readonly number[] = [LINK_RAW, LINK_IPV4, LINK_IPV6];

export class FrameReader {
  private readonly pool = new FramePool(new BlockPool(8), 4, 4);
  private readonly roce = new RoceHeader();
  private readonly native = new NativeHeader();

  /** `file` names the capture in messages. */
  constructor(private readonly file: string) {}

  /** Throws Failure E_CAPTURE_LINK for a frame of a link type that nothing here reads. */
  read(frame: CapturedFrame): Reading {
    const { linkType, bytes } = frame;
    const isCut = frame.originalBytes > bytes.length;
    if (linkType === LINK_ETHERNET) return this.readRoce(bytes, 0, bytes.length, isCut, true);
    if (rawLinks.includes(linkType)) return this.readRoce(bytes, 0, bytes.length, isCut, false);
    if (linkType === LINK_INFINIBAND) return this.readNative(bytes, 0, bytes.length, isCut);
    if (linkType === LINK_ERF) return this.readErf(bytes, isCut);
    throw new Failure(
      'E_CAPTURE_LINK',
      `frame ${frame.number} has link type ${linkType}`,
      placeOf(this.file, frame.offset),
      'Ethernet (1), raw IP (101), ERF (197) or InfiniBand (247)',
    );
  }

  private readErf(bytes: Uint8Array, isCut: boolean): Reading {
    const record = readErf(bytes);
    if (record === undefined) return remark('malformed', '', '', 'the ERF record is cut off');
    const { type, start, end } = record;
    if (type === ERF_INFINIBAND) return this.readNative(bytes, start, end, isCut);
    if (type === ERF_ETHERNET) return this.readRoce(bytes, start, end, isCut, true);
    return remark('other', '', '', `ERF record of type ${type}`);
  }

  private readRoce(
    bytes: Uint8Array,
    at: number,
    end: number,
    isCut: boolean,
    hasEthernet: boolean,
  ): Reading {
    const { pool, roce } = this;
    roce.hasEthernet = hasEthernet;
    const frame = decodeRoce(pool, bytes, at, end, roce, { icrcRules: rxeIcrcRules });
    const hasAddresses = roce.version !== 0;
    const source = hasAddresses ? roce.sourceText : '';
    const dest = hasAddresses ? roce.destText : '';
    const isForeign =
      frame === PACKET_FOREIGN ||
      (frame === PACKET_TRUNCATED && !(hasAddresses && roce.protocol === PROTOCOL_UDP));
    if (isForeign) return remark('other', source, dest, describeOther(roce, bytes, end));
    if (frame < 0) return remark('malformed', source, dest, problemText(frame, isCut));
    const packet = this.take(frame);
    const oddities: string[] = [];
    if (roce.tagBytes > 0) oddities.push(`VLAN ${((roce.tags[2] & 0xf) << 8) | roce.tags[3]}`);
    if (roce.optionBytes > 0) oddities.push(`${roce.optionBytes} bytes of IP options`);
    if (roce.checksumError !== 0) oddities.push('the IP header checksum is wrong');
    if (roce.udpChecksumError !== 0) oddities.push('the UDP checksum is wrong');
    if (roce.padBytes !== 0) oddities.push('the pad bytes are not zero');
    const icrc = roce.icrcError !== 0 ? ICRC_WRONG : (roce.icrcRule?.name ?? 'ok');
    const port = roce.sourcePort;
    return { kind: 'packet', source, dest, network: 'RoCEv2', port, packet, icrc, oddities };
  }

  private readNative(bytes: Uint8Array, at: number, end: number, isCut: boolean): Reading {
    const { pool, native } = this;
    const frame = decodeNative(pool, bytes, at, end, native);
    if (frame === PACKET_FOREIGN) return remark('other', '', '', 'not an IBA transport packet');
    if (frame < 0) return remark('malformed', '', '', problemText(frame, isCut));
    const packet = this.take(frame);
    const oddities: string[] = [];
    if (native.vcrcError !== 0) oddities.push('the VCRC is wrong');
    if (native.padBytes !== 0) oddities.push('the pad bytes are not zero');
    return {
      kind: 'packet',
      source: `LID ${native.sourceLid}`,
      dest: `LID ${native.destLid}`,
      network: 'InfiniBand',
      port: 0,
      packet,
      icrc: native.icrcError !== 0 ? ICRC_WRONG : 'ok',
      oddities,
    };
  }

  private take(frame: number): Packet {
    const packet = Packet.read(this.pool, frame);
    this.pool.release(frame);
    return packet;
  }
}

function remark(kind: Remark['kind'], source: string, dest: string, text: string): Remark {
  return { kind, source, dest, text };
}

function problemText(problem: number, isCut: boolean): string {
  const text = packetProblem[problem] ?? 'it cannot be read';
  return isCut ? `${text}: the capture cut it off` : text;
}
