/**
 * Takes the peer's window into the local partition: promises, then frames.
 *
 * Nothing of a window is applied before all of it has been checked, down to the ICRC of its last
 * packet, and to what the peer has promised earlier: nothing it does may show here before the
 * earliest time that the promises in force allow. So whatever a peer sends, no local assert is met.
 */
import type { Node } from '../sim/node.ts';
import type { Partition } from '../sim/partition.ts';
import { busProblem, decodeBus } from './bus.ts';
import { FRAME_WORDS, type FramePool } from './frame-pool.ts';
import { decodePacket } from './infiniband.ts';
import { packetProblem } from './packet.ts';
import { type FramedChannel, KIND_BUS, type WindowWriter } from './window.ts';
import { WindowScanner, windowFailure } from './window-scanner.ts';

/** The frames of the last window, decoded and not yet delivered. */
interface Staged {
  nodes: Int32Array;
  ports: Int32Array;
  arrivals: Float64Array;
  frames: Int32Array;
  count: number;
}

export class WindowReader {
  private readonly scanner: WindowScanner;
  private readonly staged: Staged = allocateStaged(64);

  /** `nodes[i]` is the local node number i, or undefined where it runs elsewhere. */
  constructor(
    private readonly pool: FramePool,
    private readonly partition: Partition,
    private readonly nodes: readonly (Node | undefined)[],
    channels: readonly FramedChannel[],
  ) {
    const remote = nodes.flatMap((node, i) => (node ? [] : [i]));
    this.scanner = new WindowScanner(nodes.length, channels, remote);
  }

  /**
   * Checks the window of `round` and keeps it for `apply`.
   * @throws Failure E_PEER_PROTOCOL with the byte offset as its place; nothing is kept then.
   */
  read(bytes: Uint8Array, round: number): void {
    const { scanner, partition } = this;
    scanner.open(bytes, round);
    scanner.speakers.forEach((node, k) => {
      const bound = partition.earliestElsewhere(node);
      if (scanner.promiseOf(k) < bound) {
        throw windowFailure(`node ${node} goes back on its promise`, 0, `${bound} ps or later`);
      }
    });
    try {
      while (scanner.next()) this.stage();
    } catch (error) {
      this.discard();
      throw error;
    }
  }

  /** Takes over the promises of the window read last, and delivers its frames. */
  apply(writer: WindowWriter): void {
    const { scanner, partition, staged } = this;
    scanner.speakers.forEach((node, k) => {
      partition.promise(node, scanner.promiseOf(k));
      // The peer did not know yet what we were sending it.
      partition.expect(node, writer.flushedArrival(node));
    });
    for (let i = 0; i < staged.count; i++) {
      const node = this.nodes[staged.nodes[i]] as Node;
      node.ports[staged.ports[i]].deliver(staged.arrivals[i], staged.frames[i]);
    }
    staged.count = 0;
  }

  /** Decodes the frame at which the scanner stands. */
  private stage(): void {
    const { scanner, pool, staged } = this;
    const { node, start, end } = scanner;
    const bound = this.partition.earliestElsewhere(node);
    if (scanner.arrivalPs < bound) {
      throw windowFailure(`arrival ${scanner.arrivalPs} ps`, start - 12, `${bound} ps or later`);
    }
    if (!hasRoom(pool)) {
      throw windowFailure('more frames than this process can hold', start);
    }
    const isBus = scanner.kind === KIND_BUS;
    const frame = isBus
      ? decodeBus(pool, scanner.bytes, start, end)
      : decodePacket(pool, scanner.bytes, start, end);
    if (frame < 0) throw windowFailure((isBus ? busProblem : packetProblem)[frame], start);
    if (staged.count === staged.frames.length) growStaged(staged);
    staged.nodes[staged.count] = node;
    staged.ports[staged.count] = scanner.port;
    staged.arrivals[staged.count] = scanner.arrivalPs;
    staged.frames[staged.count++] = frame;
  }

  private discard(): void {
    const { staged } = this;
    for (let i = 0; i < staged.count; i++) this.pool.release(staged.frames[i]);
    staged.count = 0;
  }
}

function hasRoom(pool: FramePool): boolean {
  const frames = pool.words.length / FRAME_WORDS;
  // Burst 0 is never handed out.
  const bursts = pool.burstBytes.length - 1;
  return pool.framesInUse < frames && pool.burstsInUse < bursts;
}

function allocateStaged(length: number): Staged {
  return {
    nodes: new Int32Array(length),
    ports: new Int32Array(length),
    arrivals: new Float64Array(length),
    frames: new Int32Array(length),
    count: 0,
  };
}

function growStaged(staged: Staged): void {
  const grown = allocateStaged(staged.frames.length * 2);
  grown.nodes.set(staged.nodes);
  grown.ports.set(staged.ports);
  grown.arrivals.set(staged.arrivals);
  grown.frames.set(staged.frames);
  Object.assign(staged, grown, { count: staged.count });
}
