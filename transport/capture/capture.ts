/**
 * Capture files: what a frame in one is, and which format a file has.
 *
 * A file is read from memory; frames are views into it. What is wrong with a file is told with the
 * byte at which it is wrong (Failure E_CAPTURE_INVALID), after every frame in front of it was given.
 */
import { Failure } from '../sim/failure.ts';

/** LINKTYPE_* of the tcpdump registry that faultline reads. */
export const LINK_ETHERNET = 1;
export const LINK_RAW = 101;
export const LINK_ERF = 197;
export const LINK_IPV4 = 228;
export const LINK_IPV6 = 229;
export const LINK_INFINIBAND = 247;

export interface CapturedFrame {
  /** From 1, over the whole file. */
  readonly number: number;
  /** Since 1970, or whatever the clock of the capture counts from; -1 where the file does not say. */
  readonly seconds: number;
  readonly nanoseconds: number;
  /** LINK_*, or another of the registry. */
  readonly linkType: number;
  /** Of a pcapng, where it is named. */
  readonly interfaceName: string;
  /** What was captured, and how many bytes the frame had on the wire. */
  readonly bytes: Uint8Array;
  readonly originalBytes: number;
  /** Where the frame's record starts in the file. */
  readonly offset: number;
}

/** The most bytes of one frame (the snapshot length of tcpdump). */
const FRAME_MAX_BYTES = 262_144;

/** A place in a capture, for messages. */
export function placeOf(file: string, offset: number): string {
  return `${file}: byte ${offset}`;
}

export function damaged(file: string, offset: number, what: string, expected = ''): Failure {
  return new Failure('E_CAPTURE_INVALID', what, placeOf(file, offset), expected);
}

/** Checks the captured length of frame `number`, whose bytes start at `start` and may go on to `end`. */
export function checkFrame(
  file: string,
  offset: number,
  number: number,
  bytes: number,
  room: number,
): void {
  if (bytes > FRAME_MAX_BYTES) {
    const expected = `at most ${FRAME_MAX_BYTES}`;
    throw damaged(file, offset, `frame ${number} claims ${bytes} bytes`, expected);
  }
  if (bytes > room) {
    const what = `frame ${number} is cut off: ${bytes} bytes announced, ${room} there`;
    throw damaged(file, offset, what, 'the whole frame');
  }
}
