/**
 * pcapng files (draft-ietf-opsawg-pcapng): sections of either byte order, any number of interfaces,
 * time stamps of any resolution. Blocks that hold no packets are passed over.
 */
import type { Failure } from '../sim/failure.ts';
import { type CapturedFrame, checkFrame, damaged } from './capture.ts';

export const BLOCK_SECTION = 0x0a0d0d0a;
export const BLOCK_INTERFACE = 1;
const BLOCK_PACKET = 2; // obsolete, still found
const BLOCK_SIMPLE_PACKET = 3;
export const BLOCK_ENHANCED_PACKET = 6;
export const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
export const OPTION_END = 0;
export const OPTION_IF_NAME = 2;
export const OPTION_IF_TSRESOL = 9;
const OPTION_IF_TSOFFSET = 14;
/** Block type and length in front, length behind. */
export const BLOCK_FRAME_BYTES = 12;
/** What stands in front of the bytes of an enhanced (and obsolete) packet. */
export const ENHANCED_BYTES = 20;

interface Interface {
  readonly linkType: number;
  readonly snapBytes: number;
  readonly name: string;
  /** Units of its time stamps in a second, and what is added to them, in seconds. */
  readonly unitsPerSecond: bigint;
  readonly offsetSeconds: bigint;
}

/** Whether a file starts as a pcapng does. */
export function isPcapng(bytes: Uint8Array): boolean {
  return (
    bytes.length >= 4 && new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) === BLOCK_SECTION
  );
}

/** The frames of a pcapng. Throws Failure E_CAPTURE_INVALID at what is wrong with it. */
export function readPcapng(bytes: Uint8Array, file: string): Generator<CapturedFrame> {
  return new Reader(bytes, file).frames();
}

class Reader {
  private readonly view: DataView;
  private little = true;
  /** Of the section. */
  private interfaces: Interface[] = [];
  /** Of the last frame. */
  private number = 0;

  constructor(
    private readonly bytes: Uint8Array,
    private readonly file: string,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  *frames(): Generator<CapturedFrame> {
    const { bytes, view } = this;
    for (let at = 0; at < bytes.length; ) {
      if (bytes.length - at < BLOCK_FRAME_BYTES) {
        throw this.damaged(at, 'a block is cut off', `${BLOCK_FRAME_BYTES} bytes or more`);
      }
      if (view.getUint32(at) === BLOCK_SECTION) this.startSection(at);
      const next = this.endOfBlock(at);
      switch (this.u32(at)) {
        case BLOCK_INTERFACE:
          this.interfaces.push(this.readInterface(at, next));
          break;
        case BLOCK_ENHANCED_PACKET:
          yield this.readPacket(at, next, this.u32(at + 8));
          break;
        case BLOCK_PACKET:
          yield this.readPacket(at, next, this.u16(at + 8));
          break;
        case BLOCK_SIMPLE_PACKET:
          yield this.readSimplePacket(at, next);
      }
      at = next;
    }
  }

  private startSection(at: number): void {
    const { view } = this;
    if (view.byteLength - at < 28)
      throw this.damaged(at, 'the section header is cut off', '28 bytes');
    this.little = view.getUint32(at + 8, true) === BYTE_ORDER_MAGIC;
    if (this.u32(at + 8) !== BYTE_ORDER_MAGIC) {
      throw this.damaged(at + 8, 'the byte-order magic is wrong', '1a2b3c4d in either order');
    }
    const major = this.u16(at + 12);
    if (major !== 1) throw this.damaged(at + 12, `version ${major} of pcapng`, 'version 1');
    this.interfaces = [];
  }

  /** Checks the lengths of the block at `at`. */
  private endOfBlock(at: number): number {
    const length = this.u32(at + 4);
    const left = this.bytes.length - at;
    if (length < BLOCK_FRAME_BYTES || (length & 3) !== 0) {
      throw this.damaged(at + 4, `a block of ${length} bytes`, 'a multiple of 4, 12 or more');
    }
    if (length > left) {
      const what = `a block is cut off: ${length} bytes announced, ${left} there`;
      throw this.damaged(at, what, 'the whole block');
    }
    if (this.u32(at + length - 4) !== length) {
      throw this.damaged(at + length - 4, 'the two lengths of a block differ', `${length} again`);
    }
    return at + length;
  }

  private readInterface(at: number, next: number): Interface {
    const { view } = this;
    const end = next - 4;
    if (end - at < 16) throw this.damaged(at, 'an interface description is cut off', '20 bytes');
    let name = '';
    let unitsPerSecond = 1_000_000n;
    let offsetSeconds = 0n;
    for (let option = at + 16; option + 4 <= end; ) {
      const code = this.u16(option);
      const length = this.u16(option + 2);
      const value = option + 4;
      if (code === OPTION_END) break;
      if (value + length > end)
        throw this.damaged(option, 'an option is cut off', `${length} bytes`);
      if (code === OPTION_IF_NAME) {
        const text = this.bytes.subarray(value, value + length);
        name = new TextDecoder().decode(text).replace(/\0+$/, '');
      } else if (code === OPTION_IF_TSRESOL && length === 1) {
        const exponent = BigInt(view.getUint8(value) & 0x7f);
        unitsPerSecond = view.getUint8(value) & 0x80 ? 2n ** exponent : 10n ** exponent;
      } else if (code === OPTION_IF_TSOFFSET && length === 8) {
        offsetSeconds = view.getBigInt64(value, this.little);
      }
      option = value + ((length + 3) & ~3);
    }
    const snapBytes = this.u32(at + 12);
    return { linkType: this.u16(at + 8), snapBytes, name, unitsPerSecond, offsetSeconds };
  }

  /** An enhanced packet, or an obsolete one: they differ in where the interface stands. */
  private readPacket(at: number, next: number, index: number): CapturedFrame {
    this.number++;
    const start = at + 8 + ENHANCED_BYTES;
    if (next - 4 < start) {
      const what = `the header of frame ${this.number} is cut off`;
      throw this.damaged(at, what, `${ENHANCED_BYTES} bytes`);
    }
    const origin = this.interfaceOf(index, at + 8);
    const captured = this.u32(at + 20);
    checkFrame(this.file, at, this.number, captured, next - 4 - start);
    const { unitsPerSecond, offsetSeconds } = origin;
    const stamp = (BigInt(this.u32(at + 12)) << 32n) | BigInt(this.u32(at + 16));
    return {
      number: this.number,
      seconds: Number(stamp / unitsPerSecond + offsetSeconds),
      nanoseconds: Number(((stamp % unitsPerSecond) * 1_000_000_000n) / unitsPerSecond),
      linkType: origin.linkType,
      interfaceName: origin.name,
      bytes: this.bytes.subarray(start, start + captured),
      originalBytes: this.u32(at + 24),
      offset: at,
    };
  }

  /** It has no time, comes from the first interface, and is cut at that one's snapshot length. */
  private readSimplePacket(at: number, next: number): CapturedFrame {
    this.number++;
    const start = at + 12;
    if (next - 4 < start) {
      throw this.damaged(at, `the header of frame ${this.number} is cut off`, '4 bytes');
    }
    const origin = this.interfaceOf(0, at);
    const originalBytes = this.u32(at + 8);
    const captured =
      origin.snapBytes === 0 ? originalBytes : Math.min(originalBytes, origin.snapBytes);
    checkFrame(this.file, at, this.number, captured, next - 4 - start);
    return {
      number: this.number,
      seconds: -1,
      nanoseconds: 0,
      linkType: origin.linkType,
      interfaceName: origin.name,
      bytes: this.bytes.subarray(start, start + captured),
      originalBytes,
      offset: at,
    };
  }

  private interfaceOf(index: number, offset: number): Interface {
    const found = this.interfaces[index];
    if (found !== undefined) return found;
    const what = `frame ${this.number} came from interface ${index}`;
    const expected = `one of the ${this.interfaces.length} described before it`;
    throw this.damaged(offset, what, expected);
  }

  private damaged(offset: number, what: string, expected: string): Failure {
    return damaged(this.file, offset, what, expected);
  }

  private u32(at: number): number {
    return this.view.getUint32(at, this.little);
  }

  private u16(at: number): number {
    return this.view.getUint16(at, this.little);
  }
}
