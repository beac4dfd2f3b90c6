/**
 * The bytes of a page frame as somebody sees them who reaches it by its number: a guest, a GRU, an
 * attacher. Owns nothing; who may reach which frame is the caller's business.
 */
import { type Frames, PAGE_BYTES } from '../mm/physical/frames.ts';

/** Copies `length` bytes of `frame` from its byte `within` on to `out` at `at`. */
export function readFrame(
  { content }: Frames,
  frame: number,
  within: number,
  out: Uint8Array,
  at: number,
  length: number,
): void {
  const block = content.sample(frame);
  const from = block * PAGE_BYTES + within;
  out.set(content.blocks.bytes.subarray(from, from + length), at);
  content.blocks.release(block);
}

/** Copies `bytes` [at, at + length) into `frame` from its byte `within` on. */
export function writeFrame(
  { content }: Frames,
  frame: number,
  within: number,
  bytes: Uint8Array,
  at: number,
  length: number,
): void {
  const to = content.write(frame, length === PAGE_BYTES) * PAGE_BYTES + within;
  content.blocks.bytes.set(bytes.subarray(at, at + length), to);
}
