/**
 * Packets on the wire: the fields of a frame, and what a packet weighs on a link.
 *
 * Inside a process a packet is the words of a pool frame. Its bytes are made where it leaves: between
 * our processes and in native captures (`infiniband.ts`), on Ethernet (`roce.ts`). Both share what
 * stands between the BTH and the pad (`transport-headers.ts`).
 */
import { opHeaderBytes } from './opcodes.ts';

// Content words of a wire frame. Double 0 is the virtual address of RETH or AtomicETH. An address of
// 2^53 or more stands there with its low 32 bits cleared, and those are double 1: exact, and out of
// the range of any region all the same.
export const W_OPCODE = 0;
export const W_DEST_QPN = 1;
export const W_PSN = 2;
/** BTH_* bits. */
export const W_BTH_FLAGS = 3;
/** The rkey of RETH or AtomicETH; of a UD packet its Q_Key. */
export const W_RKEY = 4;
export const W_QKEY = 4;
/** Bytes of a WRITE, READ or FLUSH (RETH); of a UD packet its source QP. */
export const W_DMA_BYTES = 5;
export const W_SOURCE_QPN = 5;
/** Syndrome in the high byte, MSN below. */
export const W_AETH = 6;
/** Immediate data (ImmDt), the rkey to invalidate (IETH), or the FETH. */
export const W_IMMEDIATE = 7;
/** Source LID in the high half, destination LID in the low half. */
export const W_LIDS = 8;
export const W_PKEY = 9;
// AtomicETH: what to add or to swap in, and what to compare with. AtomicAckETH: the original value.
export const W_SWAP_HIGH = 5;
export const W_SWAP_LOW = 6;
export const W_COMPARE_HIGH = 7;
export const W_COMPARE_LOW = 10;
export const W_ORIGINAL_HIGH = 5;
export const W_ORIGINAL_LOW = 7;
/** The reserved byte of a DETH. */
export const W_DETH_RESERVED = 10;
/** The 16 reserved bytes of a CNP: four words. */
export const W_CNP = 4;

/** Bits of W_BTH_FLAGS. A packet with none has MigReq set and is otherwise all zeros. */
export const BTH_SOLICITED = 1;
export const BTH_ACK_REQUEST = 2;
/** MigReq is clear: the sender's path is not in the migrated state, or it does not know of paths. */
export const BTH_NOT_MIGRATED = 4;
export const BTH_FECN = 8;
export const BTH_BECN = 16;
/** The payload starts with the 40 bytes of the packet's GRH, or of its IP header (UD). */
export const BTH_WITH_GRH = 32;
// What adapters do not look at, kept so that a captured packet can be written again byte for byte.
export const BTH_TVER_SHIFT = 8; // 4 bits: transport header version
export const BTH_RESERVED6_SHIFT = 12; // 6 bits beside FECN and BECN
export const BTH_RESERVED7_SHIFT = 18; // 7 bits beside AckReq
/**
 * The ICRC does not match: bits were flipped on the simulated link, or the packet came so from a real
 * one. Between our processes it travels with its ICRC complemented.
 */
export const BTH_DAMAGED = 1 << 25;

export const PKEY_DEFAULT = 0xffff;
/** Bytes of the GRH area in front of a datagram: a GRH, or 20 zero bytes and an IPv4 header. */
export const GRH_BYTES = 40;
export const ICRC_BYTES = 4;
/** The most payload of a packet (path MTU 4096). */
export const PAYLOAD_MAX_BYTES = 4096;
/** The most that BTH and extension headers take (RC_COMPARE_SWAP). */
export const HEADERS_MAX_BYTES = 40;

/** Why bytes are not a packet; negative so that they never look like a frame. */
export const PACKET_TRUNCATED = -1;
export const PACKET_BAD_LENGTH = -2;
export const PACKET_BAD_PAD = -3;
export const PACKET_BAD_ICRC = -4;
export const PACKET_FOREIGN = -5;
export const PACKET_FRAGMENT = -6;
export const packetProblem: Readonly<Record<number, string>> = {
  [PACKET_TRUNCATED]: 'the packet ends inside its headers',
  [PACKET_BAD_LENGTH]: 'a length field of the packet and its number of bytes disagree',
  [PACKET_BAD_PAD]: 'the pad bytes are not zero',
  [PACKET_BAD_ICRC]: 'the ICRC does not match',
  [PACKET_FOREIGN]: 'the frame does not hold an InfiniBand transport packet',
  [PACKET_FRAGMENT]: 'the packet is a fragment of an IP datagram',
};

/** What carries packets: native InfiniBand, or Ethernet (RoCEv2). */
export type LinkLayer = 'InfiniBand' | 'Ethernet';
/**
 * Bytes a link layer takes for a packet besides BTH, extension headers, payload, pad and ICRC: LRH 8
 * and VCRC 2; or preamble and gap 20, Ethernet 14, IPv4 20, UDP 8 and FCS 4.
 */
export const linkOverheadBytes: Readonly<Record<LinkLayer, number>> = {
  InfiniBand: 10,
  Ethernet: 66,
};
/** Of those, what port counters count: the LRH (IBTA 16.1.3.5); Ethernet to UDP. */
export const linkCountedBytes: Readonly<Record<LinkLayer, number>> = {
  InfiniBand: 8,
  Ethernet: 42,
};

/** Bytes a packet takes on a link whose layer adds `overheadBytes` (linkOverheadBytes). */
export function packetWireBytes(
  opcode: number,
  payloadBytes: number,
  overheadBytes = linkOverheadBytes.InfiniBand,
): number {
  return overheadBytes + opHeaderBytes[opcode] + ((payloadBytes + 3) & ~3) + ICRC_BYTES;
}

/**
 * The same in four-octet words as port counters count them (PortXmitData): without VCRC, preamble or
 * FCS. `countedBytes`: linkCountedBytes.
 */
export function packetDataWords(
  opcode: number,
  payloadBytes: number,
  countedBytes = linkCountedBytes.InfiniBand,
): number {
  return packetWireBytes(opcode, payloadBytes, countedBytes) >>> 2;
}
