/**
 * pcap files (draft-ietf-opsawg-pcap): both byte orders, micro- and nanoseconds.
 */
import { type CapturedFrame, checkFrame, damaged } from './capture.ts';

const MAGIC_MICROSECONDS = 0xa1b2c3d4;
const MAGIC_NANOSECONDS = 0xa1b23c4d;
const HEADER_BYTES = 24;
const RECORD_BYTES = 16;
/** The link type; the bits above say how long an FCS is, which every frame tells by itself. */
const LINK_TYPE_MASK = 0xffff;

/** Whether a file starts as a pcap does. */
export function isPcap(bytes: Uint8Array): boolean {
  if (bytes.length < 4) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset, 4);
  return isMagic(view.getUint32(0, true)) || isMagic(view.getUint32(0, false));
}

/** The frames of a pcap. Throws Failure E_CAPTURE_INVALID at what is wrong with it. */
export function* readPcap(bytes: Uint8Array, file: string): Generator<CapturedFrame> {
  if (bytes.length < HEADER_BYTES) {
    throw damaged(file, bytes.length, 'the file ends inside its header', `${HEADER_BYTES} bytes`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const little = isMagic(view.getUint32(0, true));
  const toNanoseconds = view.getUint32(0, little) === MAGIC_NANOSECONDS ? 1 : 1000;
  const major = view.getUint16(4, little);
  if (major !== 2) throw damaged(file, 4, `version ${major} of pcap`, 'version 2');
  const linkType = view.getUint32(20, little) & LINK_TYPE_MASK;
  let number = 1;
  for (let at = HEADER_BYTES; at < bytes.length; number++) {
    const room = bytes.length - at - RECORD_BYTES;
    if (room < 0) {
      throw damaged(file, at, `the header of frame ${number} is cut off`, `${RECORD_BYTES} bytes`);
    }
    const captured = view.getUint32(at + 8, little);
    const originalBytes = view.getUint32(at + 12, little);
    checkFrame(file, at, number, captured, room);
    const nanoseconds = view.getUint32(at + 4, little) * toNanoseconds;
    if (nanoseconds >= 1e9) {
      throw damaged(file, at + 4, `frame ${number}: more than a second`, 'a part of a second');
    }
    const start = at + RECORD_BYTES;
    yield {
      number,
      seconds: view.getUint32(at, little),
      nanoseconds,
      linkType,
      interfaceName: '',
      bytes: bytes.subarray(start, start + captured),
      originalBytes,
      offset: at,
    };
    at = start + captured;
  }
}

function isMagic(value: number): boolean {
  return value === MAGIC_MICROSECONDS || value === MAGIC_NANOSECONDS;
}
