/** Captures with one field changed, the ICRC made right again: for tests of the comparer. */
import { readFileSync } from 'node:fs';
import { type Capture, type CapturedPacket, parseCapture } from '../../harness/conform/capture.ts';
import { type CaptureText, parseCaptureText } from '../../harness/conform/rcpeer-text.ts';
import { HDR_AETH, headerOffset, icrcOfRoce, opHeaderBytes } from '../../transport/index.ts';

export interface Loaded {
  readonly bytes: Uint8Array;
  readonly capture: Capture;
  readonly text: CaptureText | undefined;
}

/** A capture and the text beside it, by the path of the capture without its ending. */
export function load(path: string): Loaded {
  const bytes = Uint8Array.from(readFileSync(`${path}.pcap`));
  let text: CaptureText | undefined;
  try {
    text = parseCaptureText(readFileSync(`${path}.txt`, 'utf8'), `${path}.txt`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return { bytes, capture: parseCapture(bytes, path), text };
}

/** The same capture with `edit` made to one frame. */
export function mutate(
  { bytes, capture }: Loaded,
  target: CapturedPacket,
  edit: (frame: Uint8Array, bth: number) => void,
): Capture {
  const copy = Uint8Array.from(bytes);
  const { byteOffset, length } = target.bytes;
  const frame = copy.subarray(byteOffset, byteOffset + length);
  edit(frame, target.bthAt);
  const ip = 14;
  const end = endOfPacket(frame, ip) - 4;
  const icrc = icrcOfRoce(frame, ip, target.bthAt, end);
  new DataView(copy.buffer).setUint32(byteOffset + end, icrc, true);
  return parseCapture(copy, capture.file);
}

/** Edits of fields that every replay must notice. */
export const edits: Readonly<Record<string, (frame: Uint8Array, bth: number) => boolean>> = {
  psn: (frame, bth) => {
    frame[bth + 11] ^= 1;
    return true;
  },
  opcode: (frame, bth) => {
    frame[bth] ^= 1;
    return true;
  },
  syndrome: (frame, bth) => {
    const at = headerOffset(frame[bth], HDR_AETH);
    if (at >= 0) frame[bth + at] ^= 0x01;
    return at >= 0;
  },
  msn: (frame, bth) => {
    const at = headerOffset(frame[bth], HDR_AETH);
    if (at >= 0) frame[bth + at + 3] ^= 1;
    return at >= 0;
  },
  payload: (frame, bth) => {
    const at = bth + opHeaderBytes[frame[bth]];
    if (at >= endOfPacket(frame, 14) - 4) return false;
    frame[at] ^= 0x40;
    return true;
  },
};

function endOfPacket(frame: Uint8Array, ip: number): number {
  const view = new DataView(frame.buffer, frame.byteOffset);
  return frame[ip] >>> 4 === 6 ? ip + 40 + view.getUint16(ip + 4) : ip + view.getUint16(ip + 2);
}
