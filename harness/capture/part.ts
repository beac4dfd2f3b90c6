/**
 * What one adapter sends, on its way into a capture: a file of its own in the order of time, until
 * all adapters' are merged (`merge.ts`). So every placement of the world leaves the same capture.
 *
 * A record is f64 time (ps), u32 length, and the bytes of the frame as the capture will have them.
 * Files are read and written with calls that wait: the model that sends cannot.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import {
  ERF_BYTES,
  encodeNative,
  encodeRoce,
  FRAME_WORDS,
  type FramePool,
  type LinkLayer,
  LNH_LOCAL,
  NativeHeader,
  ROCE_MAX_BYTES,
  RoceHeader,
  type TimePs,
  W_DEST_QPN,
  W_LIDS,
  type WireTap,
  writeErf,
} from '../../transport/index.ts';
import { cannotWrite } from '../stats/output.ts';
import { ipOfLid, macOfLid } from './addresses.ts';

const RECORD_BYTES = 12;
const BUFFER_BYTES = 1 << 20;
/** The most bytes of one record. */
const RECORD_MAX_BYTES = RECORD_BYTES + ROCE_MAX_BYTES;

/** The tap of one adapter. */
export class PartWriter implements WireTap {
  private readonly file: number;
  private readonly buffer = new Uint8Array(BUFFER_BYTES);
  private readonly view = new DataView(this.buffer.buffer);
  private readonly roce = new RoceHeader();
  private readonly native = new NativeHeader();
  private used = 0;

  /** Throws Failure E_OUTPUT, as everything here does when `path` cannot be written. */
  constructor(
    private readonly path: string,
    private readonly pool: FramePool,
    private readonly linkLayer: LinkLayer,
  ) {
    this.file = this.attempt(() => openSync(path, 'w'));
  }

  sent(frame: number, index: number, leftPs: TimePs): void {
    if (this.used + RECORD_MAX_BYTES > BUFFER_BYTES) this.flush();
    const at = this.used;
    const end =
      this.linkLayer === 'Ethernet'
        ? this.putRoce(frame, index, at + RECORD_BYTES)
        : this.putNative(frame, index, at + RECORD_BYTES, leftPs);
    this.view.setFloat64(at, leftPs);
    this.view.setUint32(at + 8, end - at - RECORD_BYTES);
    this.used = end;
  }

  close(): void {
    this.flush();
    this.attempt(() => closeSync(this.file));
  }

  private putRoce(frame: number, index: number, at: number): number {
    const { roce, pool } = this;
    const base = frame * FRAME_WORDS;
    const lids = pool.words[base + W_LIDS];
    roce.destMac.set(macOfLid(lids & 0xffff));
    roce.sourceMac.set(macOfLid(lids >>> 16));
    roce.source.set(ipOfLid(lids >>> 16));
    roce.dest.set(ipOfLid(lids & 0xffff));
    // Assumption: a flow of its own for each queue pair; packets do not name the one they come from.
    roce.sourcePort = 0xc000 | (pool.words[base + W_DEST_QPN] & 0x3fff);
    return encodeRoce(pool, frame, index, roce, this.buffer, at);
  }

  private putNative(frame: number, index: number, at: number, leftPs: TimePs): number {
    const { native, pool, view } = this;
    const lids = pool.words[frame * FRAME_WORDS + W_LIDS];
    native.lrh[1] = LNH_LOCAL;
    native.lrh[2] = lids >>> 8;
    native.lrh[3] = lids;
    native.lrh[6] = lids >>> 24;
    native.lrh[7] = lids >>> 16;
    const end = encodeNative(pool, frame, index, native, this.buffer, at + ERF_BYTES);
    writeErf(Math.floor(leftPs / 1000), end - at - ERF_BYTES, view, at);
    return end;
  }

  private flush(): void {
    for (let written = 0; written < this.used; ) {
      written += this.attempt(() =>
        writeSync(this.file, this.buffer, written, this.used - written),
      );
    }
    this.used = 0;
  }

  private attempt<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw cannotWrite(this.path, error);
    }
  }
}

/** Reads the records of a part one after the other. */
export class PartReader {
  private readonly file: number;
  private buffer = new Uint8Array(BUFFER_BYTES);
  private at = 0;
  private end = 0;
  /** Of the record at hand; NaN: there is none left. */
  timePs: TimePs = Number.NaN;
  frame = new Uint8Array(0);

  constructor(path: string) {
    this.file = openSync(path, 'r');
    this.next();
  }

  /** Goes on to the next record. One that is cut off, because its writer was killed, is none. */
  next(): void {
    this.timePs = Number.NaN;
    if (!this.has(RECORD_BYTES)) return;
    const view = new DataView(this.buffer.buffer, this.at, RECORD_BYTES);
    const timePs = view.getFloat64(0);
    const length = view.getUint32(8);
    if (!this.has(RECORD_BYTES + length)) return;
    this.frame = this.buffer.subarray(this.at + RECORD_BYTES, this.at + RECORD_BYTES + length);
    this.at += RECORD_BYTES + length;
    this.timePs = timePs;
  }

  close(): void {
    closeSync(this.file);
  }

  /** Whether `bytes` more are at hand, after reading on if need be. */
  private has(bytes: number): boolean {
    if (this.end - this.at >= bytes) return true;
    this.buffer.copyWithin(0, this.at, this.end);
    this.end -= this.at;
    this.at = 0;
    while (this.end < bytes) {
      const read = readSync(this.file, this.buffer, this.end, BUFFER_BYTES - this.end, null);
      if (read === 0) return false;
      this.end += read;
    }
    return true;
  }
}
