/**
 * The bytes of a pcapng: little-endian, time stamps in nanoseconds, one section.
 */
import {
  BLOCK_ENHANCED_PACKET,
  BLOCK_FRAME_BYTES,
  BLOCK_INTERFACE,
  BLOCK_SECTION,
  BYTE_ORDER_MAGIC,
  ENHANCED_BYTES,
  OPTION_END,
  OPTION_IF_NAME,
  OPTION_IF_TSRESOL,
} from './pcapng.ts';

const OPTION_SHB_USERAPPL = 4;
const OPTION_EPB_FLAGS = 2;
/** epb_flags: the packet left the interface. */
const FLAG_OUTBOUND = 2;
const NANOSECONDS = 9;

export interface CaptureInterface {
  readonly name: string;
  /** LINK_*. */
  readonly linkType: number;
}

/** Bytes of an enhanced packet block besides those of the packet and its pad. */
const ENHANCED_OVERHEAD_BYTES = BLOCK_FRAME_BYTES + ENHANCED_BYTES + 8 + 4;

/** The most bytes that `writeEnhancedPacket` writes for a packet of `packetBytes`. */
export function enhancedPacketBytes(packetBytes: number): number {
  return ENHANCED_OVERHEAD_BYTES + ((packetBytes + 3) & ~3);
}

/** The start of a file: the section header, and the interfaces in the order of their numbers. */
export function pcapngHead(
  application: string,
  interfaces: readonly CaptureInterface[],
): Uint8Array {
  const section = new Uint8Array(16);
  const view = new DataView(section.buffer);
  view.setUint32(0, BYTE_ORDER_MAGIC, true);
  view.setUint16(4, 1, true);
  view.setBigInt64(8, -1n, true); // the length of the section is not given
  const blocks = [block(BLOCK_SECTION, section, option(OPTION_SHB_USERAPPL, text(application)))];
  for (const { name, linkType } of interfaces) {
    const description = new Uint8Array(8);
    new DataView(description.buffer).setUint16(0, linkType, true);
    const resolution = option(OPTION_IF_TSRESOL, Uint8Array.of(NANOSECONDS));
    blocks.push(
      block(BLOCK_INTERFACE, description, option(OPTION_IF_NAME, text(name)), resolution),
    );
  }
  return concat(blocks);
}

/** Writes the block of an outgoing packet of interface `index` at `at`; returns its end. */
export function writeEnhancedPacket(
  index: number,
  timeNs: number,
  packet: Uint8Array,
  out: Uint8Array,
  at: number,
): number {
  const view = new DataView(out.buffer, out.byteOffset, out.byteLength);
  const length = enhancedPacketBytes(packet.length);
  view.setUint32(at, BLOCK_ENHANCED_PACKET, true);
  view.setUint32(at + 4, length, true);
  view.setUint32(at + 8, index, true);
  view.setUint32(at + 12, Math.floor(timeNs / 4294967296), true);
  view.setUint32(at + 16, timeNs % 4294967296, true);
  view.setUint32(at + 20, packet.length, true);
  view.setUint32(at + 24, packet.length, true);
  out.set(packet, at + 28);
  let to = at + 28 + packet.length;
  while ((to - at) & 3) out[to++] = 0;
  view.setUint16(to, OPTION_EPB_FLAGS, true);
  view.setUint16(to + 2, 4, true);
  view.setUint32(to + 4, FLAG_OUTBOUND, true);
  view.setUint32(to + 8, OPTION_END, true);
  view.setUint32(to + 12, length, true);
  return to + 16;
}

function block(type: number, body: Uint8Array, ...options: readonly Uint8Array[]): Uint8Array {
  const content = concat([body, ...options, new Uint8Array(4)]); // OPTION_END
  const length = BLOCK_FRAME_BYTES + content.length;
  const out = new Uint8Array(length);
  const view = new DataView(out.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, length, true);
  out.set(content, 8);
  view.setUint32(length - 4, length, true);
  return out;
}

function option(code: number, value: Uint8Array): Uint8Array {
  const out = new Uint8Array(4 + ((value.length + 3) & ~3));
  const view = new DataView(out.buffer);
  view.setUint16(0, code, true);
  view.setUint16(2, value.length, true);
  out.set(value, 4);
  return out;
}

function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
