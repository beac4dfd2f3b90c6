/**
 * Sorts the windows of one round by receiver, for the hub (`channel/switchboard.ts`).
 *
 * Owns: which frame goes to whom, and the promises that go with it. Frames are copied as bytes.
 */
import { assert } from '../sim/assert.ts';
import { NEVER } from '../sim/units.ts';
import {
  type FramedChannel,
  MESSAGE_WINDOW,
  WINDOW_FRAME_BYTES,
  WINDOW_HEADER_BYTES,
  WINDOW_MAX_BYTES,
  WINDOW_PROMISE_BYTES,
} from './window.ts';
import { WindowScanner } from './window-scanner.ts';

/** The window that is being put together for one participant. */
interface Outgoing {
  bytes: Uint8Array;
  /** Nodes that the participant does not run, in rising order. */
  readonly others: readonly number[];
  at: number;
  frames: number;
}

export class WindowRouter {
  private readonly scanners: readonly WindowScanner[];
  private readonly outgoing: readonly Outgoing[];
  /** The participant that runs each node. */
  private readonly owner: Int32Array;
  /** Each node's promise, lowered by the frames on their way to it. */
  private readonly promises: Float64Array;
  private round = 0;

  /** `roles[p]` are the nodes of participant p, in rising order; together they are all nodes. */
  constructor(
    nodeCount: number,
    channels: readonly FramedChannel[],
    roles: readonly (readonly number[])[],
  ) {
    this.scanners = roles.map((nodes) => new WindowScanner(nodeCount, channels, nodes));
    this.owner = new Int32Array(nodeCount);
    this.promises = new Float64Array(nodeCount);
    this.outgoing = roles.map((nodes, p) => {
      for (const node of nodes) this.owner[node] = p;
      const others = Array.from({ length: nodeCount }, (_, i) => i).filter(
        (i) => !nodes.includes(i),
      );
      return { bytes: new Uint8Array(65_536), others, at: 0, frames: 0 };
    });
  }

  /** Starts on the windows of a round. Those of the round before may be overwritten from here on. */
  begin(round: number): void {
    this.round = round;
    this.promises.fill(NEVER);
    for (const out of this.outgoing) {
      out.at = WINDOW_HEADER_BYTES + out.others.length * WINDOW_PROMISE_BYTES;
      out.frames = 0;
      reserve(out, 0);
    }
  }

  /** Takes the window of participant p. @throws Failure E_PEER_PROTOCOL. */
  take(p: number, bytes: Uint8Array): void {
    const scanner = this.scanners[p];
    scanner.open(bytes, this.round);
    for (let k = 0; k < scanner.speakers.length; k++) {
      this.lower(scanner.speakers[k], scanner.promiseOf(k));
    }
    while (scanner.next()) {
      const { node, start, end } = scanner;
      this.lower(node, scanner.arrivalPs);
      const out = this.outgoing[this.owner[node]];
      const from = start - WINDOW_FRAME_BYTES;
      reserve(out, end - from);
      out.bytes.set(bytes.subarray(from, end), out.at);
      out.at += end - from;
      out.frames++;
    }
  }

  /** The window for participant p, once all have been taken. */
  windowFor(p: number): Uint8Array {
    const { bytes, others, at: end, frames } = this.outgoing[p];
    assert(end <= WINDOW_MAX_BYTES, 'the windows of a round outgrow a message');
    const view = new DataView(bytes.buffer);
    bytes[0] = MESSAGE_WINDOW;
    bytes[1] = 0;
    view.setUint16(2, others.length, true);
    view.setUint32(4, this.round, true);
    view.setUint32(8, frames, true);
    let at = WINDOW_HEADER_BYTES;
    for (const node of others) {
      view.setUint16(at, node, true);
      view.setFloat64(at + 2, this.promises[node], true);
      at += WINDOW_PROMISE_BYTES;
    }
    return bytes.subarray(0, end);
  }

  private lower(node: number, at: number): void {
    if (at < this.promises[node]) this.promises[node] = at;
  }
}

/** Makes room for `bytes` more. */
function reserve(out: Outgoing, bytes: number): void {
  const needed = out.at + bytes;
  if (needed <= out.bytes.length) return;
  const grown = new Uint8Array(Math.max(needed, out.bytes.length * 2));
  grown.set(out.bytes.subarray(0, out.at));
  out.bytes = grown;
}
