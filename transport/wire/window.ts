/**
 * The window: one binary message with everything a process has to say about one round.
 *
 * Owns: the layout, and the writer that fills a window while the local nodes run. Does not own: when
 * a window is sent (`channel/lockstep.ts`) and how one is checked (`window-scanner.ts`).
 *
 * Little-endian, without padding:
 *
 *     u8 1   u8 0   u16 promises   u32 round   u32 frames
 *     per promise:  u16 node   f64 time
 *     per frame:    u16 node   u8 port   u8 kind   f64 arrival   u32 length   bytes
 *
 * There is one promise for each node that the sender speaks for, in order of node number: the time
 * in picoseconds of the node's next event, or +Infinity. Frames name the node and port that receive
 * them; `kind` is 0 for a packet (`infiniband.ts`) and 1 for a bus message (`bus.ts`). A packet train is
 * a matter of one process and travels as single packets.
 */
import { assert } from '../sim/assert.ts';
import type { ChannelShape, Partition, WindowSink } from '../sim/partition.ts';
import { NEVER, type TimePs } from '../sim/units.ts';
import { BUS_MAX_BYTES, encodeBus } from './bus.ts';
import { FRAME_WORDS, type FramePool, TRAIN_COUNT, TRAIN_SPACING } from './frame-pool.ts';
import { encodePacket, PACKET_MAX_BYTES } from './infiniband.ts';

/** First byte of a window. */
export const MESSAGE_WINDOW = 1;
/** The most bytes a window, or any other message, may have. */
export const WINDOW_MAX_BYTES = 64 * 1024 * 1024;
/** The most frames a window may have. */
export const WINDOW_MAX_FRAMES = 65_536;
/** A window that has grown beyond one of these is sent before the nodes run on. */
const WINDOW_LARGE_BYTES = 16 * 1024 * 1024;
const WINDOW_LARGE_FRAMES = 8_192;

export const WINDOW_HEADER_BYTES = 12;
export const WINDOW_PROMISE_BYTES = 10;
export const WINDOW_FRAME_BYTES = 16;

/** What travels on a channel: packets or bus messages. The numbers stand in the window. */
export const KIND_WIRE = 0;
export const KIND_BUS = 1;

/** A channel of the world together with what travels on it. */
export interface FramedChannel extends ChannelShape {
  readonly kind: 'wire' | 'bus';
}

/** Ports per node in the tables that are indexed by node and port: what fits the window's u8. */
export const PORTS_PER_NODE = 256;
/** Entry of such a table where no channel leads. */
export const KIND_NONE = 255;

/** The kind of each port that `admits` lets through, at [node * PORTS_PER_NODE + port]. */
export function portKinds(
  nodeCount: number,
  channels: readonly FramedChannel[],
  admits: (from: number, to: number) => boolean,
): Uint8Array {
  const kinds = new Uint8Array(nodeCount * PORTS_PER_NODE).fill(KIND_NONE);
  for (const { a, aPort, b, bPort, kind } of channels) {
    const code = kind === 'bus' ? KIND_BUS : KIND_WIRE;
    if (admits(a, b)) kinds[b * PORTS_PER_NODE + bPort] = code;
    if (admits(b, a)) kinds[a * PORTS_PER_NODE + aPort] = code;
  }
  return kinds;
}

/** One of the writer's two windows. */
interface Draft {
  bytes: Uint8Array;
  view: DataView;
  /** Arrival of the first frame for each node, or NEVER. */
  readonly arrivals: Float64Array;
}

/**
 * Collects the frames that leave this process. Each is encoded at once and freed.
 *
 * There are two buffers, used in turn: a socket may still be reading the window sent last while the
 * next one is written. The one before that has been read, because the peer's window of that round,
 * which the peer sends after reading ours, has been awaited.
 */
export class WindowWriter implements WindowSink {
  private readonly kinds: Uint8Array;
  private readonly promiseEnd: number;
  private draft: Draft;
  private flushed: Draft;
  private at: number;
  private frames = 0;

  /** `localNodes` are the numbers of the nodes that run here. */
  constructor(
    private readonly pool: FramePool,
    nodeCount: number,
    channels: readonly FramedChannel[],
    private readonly localNodes: readonly number[],
  ) {
    const local = new Set(localNodes);
    this.kinds = portKinds(nodeCount, channels, (from, to) => local.has(from) && !local.has(to));
    this.promiseEnd = WINDOW_HEADER_BYTES + localNodes.length * WINDOW_PROMISE_BYTES;
    this.at = this.promiseEnd;
    this.draft = emptyDraft(nodeCount);
    this.flushed = emptyDraft(nodeCount);
  }

  /** True when the window should be sent now, although the local nodes could run on. */
  get isLarge(): boolean {
    return this.at >= WINDOW_LARGE_BYTES || this.frames >= WINDOW_LARGE_FRAMES;
  }

  put(node: number, port: number, arrivalPs: TimePs, frame: number): void {
    const kind = this.kinds[node * PORTS_PER_NODE + port];
    assert(kind !== KIND_NONE, 'no channel leads from here to that port');
    if (arrivalPs < this.draft.arrivals[node]) this.draft.arrivals[node] = arrivalPs;
    const base = frame * FRAME_WORDS;
    if (kind === KIND_BUS) {
      this.reserve(BUS_MAX_BYTES);
      const body = this.at + WINDOW_FRAME_BYTES;
      const end = encodeBus(this.pool, frame, this.draft.bytes, body);
      this.close(node, port, kind, arrivalPs, end);
    } else {
      const count = Math.max(1, this.pool.words[base + TRAIN_COUNT]);
      const spacingPs = this.pool.words[base + TRAIN_SPACING];
      for (let i = 0; i < count; i++) {
        this.reserve(PACKET_MAX_BYTES);
        const body = this.at + WINDOW_FRAME_BYTES;
        const end = encodePacket(this.pool, frame, i, this.draft.bytes, body);
        this.close(node, port, kind, arrivalPs + i * spacingPs, end);
      }
    }
    this.pool.release(frame);
  }

  /**
   * Ends the window with the promises of the local nodes and starts the next one. The bytes stay as
   * they are until the second call from now.
   */
  flush(round: number, partition: Partition): Uint8Array {
    const { bytes, view } = this.draft;
    bytes[0] = MESSAGE_WINDOW;
    bytes[1] = 0;
    view.setUint16(2, this.localNodes.length, true);
    view.setUint32(4, round, true);
    view.setUint32(8, this.frames, true);
    let at = WINDOW_HEADER_BYTES;
    for (const node of this.localNodes) {
      view.setUint16(at, node, true);
      view.setFloat64(at + 2, partition.earliest(node), true);
      at += WINDOW_PROMISE_BYTES;
    }
    const message = bytes.subarray(0, this.at);
    const next = this.flushed;
    this.flushed = this.draft;
    this.draft = next;
    next.arrivals.fill(NEVER);
    this.at = this.promiseEnd;
    this.frames = 0;
    return message;
  }

  /** When the first frame of the window flushed last arrives at `node`, or NEVER. */
  flushedArrival(node: number): TimePs {
    return this.flushed.arrivals[node];
  }

  /** Writes the header of the frame whose bytes stand before `end`. */
  private close(node: number, port: number, kind: number, arrivalPs: TimePs, end: number): void {
    const { bytes, view } = this.draft;
    const at = this.at;
    view.setUint16(at, node, true);
    bytes[at + 2] = port;
    bytes[at + 3] = kind;
    view.setFloat64(at + 4, arrivalPs, true);
    view.setUint32(at + 12, end - at - WINDOW_FRAME_BYTES, true);
    this.at = end;
    this.frames++;
    assert(
      end <= WINDOW_MAX_BYTES && this.frames <= WINDOW_MAX_FRAMES,
      'a window outgrows its limit: one event sends more than a message can hold',
    );
  }

  /** Makes room for a frame of up to `bytes` bytes. */
  private reserve(bytes: number): void {
    const needed = this.at + WINDOW_FRAME_BYTES + bytes;
    const { draft } = this;
    if (needed <= draft.bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, draft.bytes.length * 2));
    grown.set(draft.bytes.subarray(0, this.at));
    draft.bytes = grown;
    draft.view = new DataView(grown.buffer);
  }
}

function emptyDraft(nodeCount: number): Draft {
  const bytes = new Uint8Array(WINDOW_HEADER_BYTES + nodeCount * WINDOW_PROMISE_BYTES + 65_536);
  const arrivals = new Float64Array(nodeCount).fill(NEVER);
  return { bytes, view: new DataView(bytes.buffer), arrivals };
}
