/**
 * Walks through a window that somebody else wrote and believes nothing in it.
 *
 * Owns: the checks that need only the shape of the world: lengths, counts, limits, which nodes and
 * ports the sender may speak for, the order of arrivals on each channel. Does not own: what a frame
 * says (`window-reader.ts`); the hub forwards frames without looking inside.
 */
import { Failure } from '../sim/failure.ts';
import { NEVER, type TimePs } from '../sim/units.ts';
import {
  type FramedChannel,
  KIND_NONE,
  MESSAGE_WINDOW,
  PORTS_PER_NODE,
  portKinds,
  WINDOW_FRAME_BYTES,
  WINDOW_HEADER_BYTES,
  WINDOW_MAX_BYTES,
  WINDOW_MAX_FRAMES,
  WINDOW_PROMISE_BYTES,
} from './window.ts';

/** A window does not follow the protocol; `at` is the byte offset of what is wrong. */
export function windowFailure(message: string, at: number, expected = ''): Failure {
  return new Failure('E_PEER_PROTOCOL', message, `byte ${at} of the window`, expected);
}

export class WindowScanner {
  bytes: Uint8Array = new Uint8Array(0);
  /** The frame that `next` has just reached, and where its bytes start and end. */
  node = 0;
  port = 0;
  kind = 0;
  arrivalPs: TimePs = 0;
  start = 0;
  end = 0;
  private view = new DataView(this.bytes.buffer);
  private frames = 0;
  private readonly kinds: Uint8Array;
  /** Last arrival so far on the channel into each port. */
  private readonly arrivals: Float64Array;

  /** `speakers` are the nodes that the sender of the windows speaks for, in rising order. */
  constructor(
    nodeCount: number,
    channels: readonly FramedChannel[],
    readonly speakers: readonly number[],
  ) {
    const speaks = new Set(speakers);
    this.kinds = portKinds(nodeCount, channels, (from, to) => speaks.has(from) && !speaks.has(to));
    this.arrivals = new Float64Array(nodeCount * PORTS_PER_NODE);
  }

  /** Starts on a window and checks its header and its promises. */
  open(bytes: Uint8Array, round: number): void {
    this.bytes = bytes;
    if (bytes.length > WINDOW_MAX_BYTES) {
      throw windowFailure(`a window of ${bytes.length} bytes`, 0, `at most ${WINDOW_MAX_BYTES}`);
    }
    const promises = this.speakers.length;
    this.end = WINDOW_HEADER_BYTES + promises * WINDOW_PROMISE_BYTES;
    if (bytes.length < this.end) {
      throw windowFailure('the window ends inside its promises', bytes.length);
    }
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (bytes[0] !== MESSAGE_WINDOW || bytes[1] !== 0) throw windowFailure('not a window', 0);
    const claimed = this.view.getUint16(2, true);
    if (claimed !== promises) throw windowFailure(`${claimed} promises`, 2, String(promises));
    const sent = this.view.getUint32(4, true);
    if (sent !== round) throw windowFailure(`round ${sent}`, 4, `round ${round}`);
    this.frames = this.view.getUint32(8, true);
    if (this.frames > WINDOW_MAX_FRAMES) {
      throw windowFailure(`${this.frames} frames`, 8, `at most ${WINDOW_MAX_FRAMES}`);
    }
    for (let k = 0; k < promises; k++) this.checkPromise(k);
  }

  /** The promise of the k-th speaker: when it does something next, or NEVER. */
  promiseOf(k: number): TimePs {
    return this.view.getFloat64(promiseAt(k) + 2, true);
  }

  /** Goes on to the next frame; false when that was the last one and the window ends with it. */
  next(): boolean {
    const at = this.end;
    const { bytes, view } = this;
    if (this.frames === 0) {
      if (at !== bytes.length) throw windowFailure('bytes after the last frame', at);
      return false;
    }
    this.frames--;
    if (bytes.length - at < WINDOW_FRAME_BYTES) {
      throw windowFailure('the window ends inside a frame header', at);
    }
    this.node = view.getUint16(at, true);
    this.port = bytes[at + 2];
    this.kind = bytes[at + 3];
    this.arrivalPs = view.getFloat64(at + 4, true);
    const length = view.getUint32(at + 12, true);
    this.start = at + WINDOW_FRAME_BYTES;
    if (length > bytes.length - this.start) {
      throw windowFailure(`a frame of ${length} bytes`, at + 12, 'what the window still has');
    }
    this.end = this.start + length;
    const place = this.node * PORTS_PER_NODE + this.port;
    // Past the end of the table there is no kind at all, which also differs.
    const kind = this.kinds[place];
    if (kind === undefined || kind === KIND_NONE) {
      const port = `port ${this.port} of node ${this.node}`;
      throw windowFailure(`the sender has no channel to ${port}`, at);
    }
    if (this.kind !== kind) throw windowFailure(`kind ${this.kind}`, at + 3, String(kind));
    if (!Number.isSafeInteger(this.arrivalPs) || this.arrivalPs < this.arrivals[place]) {
      throw windowFailure(
        `arrival ${this.arrivalPs}`,
        at + 4,
        `an integer from ${this.arrivals[place]} on`,
      );
    }
    this.arrivals[place] = this.arrivalPs;
    return true;
  }

  private checkPromise(k: number): void {
    const at = promiseAt(k);
    const node = this.view.getUint16(at, true);
    if (node !== this.speakers[k]) {
      throw windowFailure(`a promise for node ${node}`, at, `node ${this.speakers[k]}`);
    }
    const time = this.promiseOf(k);
    if (time !== NEVER && !(Number.isSafeInteger(time) && time >= 0)) {
      throw windowFailure(`promise ${time}`, at + 2, 'picoseconds or +Infinity');
    }
  }
}

function promiseAt(k: number): number {
  return WINDOW_HEADER_BYTES + k * WINDOW_PROMISE_BYTES;
}
