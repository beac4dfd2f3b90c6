/**
 * A capture as this folder looks at it: its RoCEv2 packets with the ports they went between, and its
 * other frames.
 *
 * Every packet is also written again from what was read of it and compared byte for byte.
 */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import {
  BlockPool,
  BTH_DAMAGED,
  decodeRoce,
  encodeRoce,
  Failure,
  FramePool,
  LINK_ETHERNET,
  LINK_IPV4,
  LINK_IPV6,
  LINK_RAW,
  PACKET_FOREIGN,
  packetProblem,
  placeOf,
  ROCE_MAX_BYTES,
  RoceHeader,
  readCapture,
  rxeIcrcRules,
  W_BTH_FLAGS,
} from '../../transport/index.ts';
import { Packet } from '../capture/packet.ts';
import { gidOfAddress } from './gid.ts';

export interface CapturedPacket {
  /** Place among the packets of the capture, from 0. */
  readonly index: number;
  /** Number of its frame in the file, from 1. */
  readonly number: number;
  readonly timeUs: number;
  /** GIDs of the ports it went between. */
  readonly source: string;
  readonly dest: string;
  readonly packet: Packet;
  /** Its frame, and where the BTH stands in it. */
  readonly bytes: Uint8Array;
  readonly bthAt: number;
  readonly hasEthernet: boolean;
  /** The rule of the rxe profile by which its ICRC is right, where it is not by the specification. */
  readonly icrcRule: string | undefined;
}

export interface Capture {
  readonly file: string;
  readonly packets: readonly CapturedPacket[];
  /** Frames that are something else, ARP and TCP among them. */
  readonly others: readonly Uint8Array[];
  /** What is wrong with single RoCEv2 frames: no adapter would take them. */
  readonly problems: readonly FrameProblem[];
}

export interface FrameProblem {
  readonly number: number;
  readonly what: string;
  /** Whether it is among the packets all the same. */
  readonly isRead: boolean;
}

const LINKS: readonly number[] = [LINK_ETHERNET, LINK_RAW, LINK_IPV4, LINK_IPV6];

/** Reads the capture at `path`. Throws Failure E_CAPTURE_NOT_FOUND, E_CAPTURE_INVALID or E_CAPTURE_LINK. */
export async function loadCapture(path: string): Promise<Capture> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    throw new Failure('E_CAPTURE_NOT_FOUND', (error as Error).message, path, 'a pcap or a pcapng');
  }
  return parseCapture(bytes, path);
}

/** What an adapter would read of a frame with these bytes, its ICRC made right; undefined: nothing. */
export function readAltered(bytes: Uint8Array, hasEthernet: boolean): Packet | undefined {
  const pool = new FramePool(new BlockPool(8), 2, 2);
  const header = new RoceHeader();
  header.hasEthernet = hasEthernet;
  const frame = decodeRoce(pool, bytes, 0, bytes.length, header, { withGrh: true });
  if (frame < 0) return undefined;
  const packet = Packet.read(pool, frame);
  return packet.with({ [W_BTH_FLAGS]: packet.words[W_BTH_FLAGS] & ~BTH_DAMAGED });
}

/** The same from memory. */
export function parseCapture(bytes: Uint8Array, file: string): Capture {
  const pool = new FramePool(new BlockPool(8), 4, 4);
  const packets: CapturedPacket[] = [];
  const others: Uint8Array[] = [];
  const problems: FrameProblem[] = [];
  const out = new Uint8Array(ROCE_MAX_BYTES);
  let firstSeconds: number | undefined;
  for (const captured of readCapture(bytes, file)) {
    const { number, linkType, seconds, nanoseconds } = captured;
    if (!LINKS.includes(linkType)) {
      throw new Failure(
        'E_CAPTURE_LINK',
        `frame ${number} is of link type ${linkType}, on which there is no RoCEv2`,
        placeOf(basename(file), captured.offset),
        'Ethernet or raw IP',
      );
    }
    firstSeconds ??= seconds;
    const header = new RoceHeader();
    header.hasEthernet = linkType === LINK_ETHERNET;
    const frame = decodeRoce(pool, captured.bytes, 0, captured.bytes.length, header, {
      icrcRules: rxeIcrcRules,
      withGrh: true,
    });
    if (frame === PACKET_FOREIGN) {
      others.push(captured.bytes);
      continue;
    }
    if (frame < 0) {
      if (captured.originalBytes > captured.bytes.length) {
        throw new Failure(
          'E_CAPTURE_INVALID',
          `only ${captured.bytes.length} bytes of frame ${number} were captured, of ${captured.originalBytes}`,
          placeOf(basename(file), captured.offset),
          'whole frames',
        );
      }
      problems.push({ number, what: packetProblem[frame] ?? 'it cannot be read', isRead: false });
      continue;
    }
    const end = encodeRoce(pool, frame, 0, header, out, 0);
    const packet = Packet.read(pool, frame);
    pool.release(frame);
    if (end !== captured.bytes.length || !captured.bytes.every((byte, i) => byte === out[i])) {
      problems.push({ number, what: 'it is written again with other bytes', isRead: true });
    } else if (header.icrcError !== 0) {
      problems.push({ number, what: 'its ICRC is wrong', isRead: true });
    }
    packets.push({
      index: packets.length,
      number,
      timeUs: (seconds - firstSeconds) * 1e6 + nanoseconds / 1000,
      source: gidOfAddress(header.source.slice(0, header.version === 6 ? 16 : 4)),
      dest: gidOfAddress(header.dest.slice(0, header.version === 6 ? 16 : 4)),
      packet,
      bytes: captured.bytes,
      bthAt: header.bthAt,
      hasEthernet: header.hasEthernet,
      icrcRule: header.icrcRule?.name,
    });
  }
  return { file, packets, others, problems };
}
