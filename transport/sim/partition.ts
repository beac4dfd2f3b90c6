/**
 * The nodes that run in this process, and how far each may run.
 *
 * A world is a fixed list of nodes joined by channels. A process runs some of them, its *local*
 * nodes, and knows of every other node a *promise*: the earliest time at which that node can do
 * anything, given what has been sent to it. Nothing can reach node i before
 *
 *     min over all j != i of ( earliest event of j  +  shortest latency from j to i )
 *
 * so events before that time, the horizon of i, are safe. What i itself sends may be answered, so a
 * send lowers the horizon to (arrival + shortest latency back); see Port.send. (Between nodes of one
 * process, frames that cause no answer are left out of both; see Node.nextAction.) This one rule serves a
 * world in one process, a pair of processes and a process for every node: only where the promises
 * come from differs. It is the conservative scheme of Chandy, Misra and Bryant with the global
 * next-event times of YAWNS (Nicol 1993), so an idle wait costs one exchange however long it is.
 */
import { assert } from './assert.ts';
import type { Node, Outlet, Port } from './node.ts';
import { NEVER, type TimePs } from './units.ts';

/** A channel of the world: both directions have the same latency. Nodes are given by number. */
export interface ChannelShape {
  readonly a: number;
  readonly aPort: number;
  readonly b: number;
  readonly bPort: number;
  readonly latencyPs: TimePs;
}

/** Puts frames for a node of another process into the window that goes there. */
export interface WindowSink {
  put(node: number, port: number, arrivalPs: TimePs, frame: number): void;
}

export class Partition {
  /** Promises: for each remote node, the earliest time at which it can do anything. */
  private readonly promised: Float64Array;
  /** Shortest latency from node i to node j, at [i * count + j]. */
  private readonly distance: Float64Array;
  /** Earliest time at which each node may send: promises, and Node.nextAction of local nodes. */
  private readonly actions: Float64Array;
  private readonly count: number;
  private readonly locals: number[] = [];

  /**
   * `nodes[i]` is the local node number i, or undefined where it runs elsewhere. `sink` takes what is
   * sent to nodes elsewhere. `limitPs` ends the simulated world.
   */
  constructor(
    private readonly nodes: readonly (Node | undefined)[],
    channels: readonly ChannelShape[],
    sink?: WindowSink,
    private readonly limitPs: TimePs = NEVER,
  ) {
    this.count = nodes.length;
    // Every node may act at time 0 until it says otherwise.
    this.promised = new Float64Array(this.count);
    this.actions = new Float64Array(this.count);
    this.distance = shortestLatencies(this.count, channels);
    nodes.forEach((node, i) => {
      if (node) this.locals.push(i);
    });
    for (const channel of channels) {
      this.join(channel.a, channel.aPort, channel.b, channel.bPort, channel.latencyPs, sink);
      this.join(channel.b, channel.bPort, channel.a, channel.aPort, channel.latencyPs, sink);
    }
  }

  /**
   * Runs the local nodes until none may go on, or until about `budget` events have run. Returns true
   * when the budget ended it, that is, when there is more to do without hearing from anyone. Events
   * from `untilPs` on have to wait: something from outside the world may still come before them.
   */
  advance(budget: number, untilPs: TimePs = NEVER): boolean {
    const { locals, nodes, actions } = this;
    for (let i = 0; i < this.count; i++) {
      actions[i] = nodes[i]?.nextAction() ?? this.promised[i];
    }
    let left = budget;
    let moved = true;
    while (moved) {
      moved = false;
      for (let k = 0; k < locals.length; k++) {
        const i = locals[k];
        const node = nodes[i] as Node;
        node.horizon = this.horizonOf(i, untilPs);
        if (node.queue.nextTime() >= node.horizon) continue;
        left -= node.run(left);
        // What it sent to others has lowered theirs already; see `arriving`.
        actions[i] = node.nextAction();
        moved = true;
        if (left <= 0) return true;
      }
    }
    return false;
  }

  /** A frame is on its way to node i, which may act when it arrives. */
  arriving(i: number, arrivalPs: TimePs): void {
    if (arrivalPs < this.actions[i]) this.actions[i] = arrivalPs;
  }

  /** The earliest time at which node i can do anything, as known here. */
  earliest(i: number): TimePs {
    const node = this.nodes[i];
    return node ? node.queue.nextTime() : this.promised[i];
  }

  /** Takes over the promise of the remote node i. */
  promise(i: number, at: TimePs): void {
    assert(this.nodes[i] === undefined, 'a promise for a node that runs here');
    this.promised[i] = at;
  }

  /** Lowers the promise of the remote node i: a frame for it is on its way. */
  expect(i: number, arrivalPs: TimePs): void {
    if (arrivalPs < this.promised[i]) this.promised[i] = arrivalPs;
    this.arriving(i, arrivalPs);
  }

  /**
   * The earliest time at which what other processes do can show at node i, local or not, given the
   * promises in force. A frame or a promise that comes before it breaks the protocol.
   */
  earliestElsewhere(i: number): TimePs {
    let earliest = NEVER;
    for (let j = 0; j < this.count; j++) {
      if (this.nodes[j] !== undefined) continue;
      const at = this.promised[j] + (j === i ? 0 : this.distance[j * this.count + i]);
      if (at < earliest) earliest = at;
    }
    return earliest;
  }

  /** True when nothing is left to happen, here or elsewhere, before the end of the world. */
  finished(): boolean {
    for (let i = 0; i < this.count; i++) {
      const at = this.earliest(i);
      if (at !== NEVER && at <= this.limitPs) return false;
    }
    return true;
  }

  private horizonOf(i: number, untilPs: TimePs): TimePs {
    let horizon = Math.min(untilPs, this.limitPs + 1);
    const { count, actions, distance } = this;
    for (let j = 0; j < count; j++) {
      if (j === i) continue;
      const at = actions[j] + distance[j * count + i];
      if (at < horizon) horizon = at;
    }
    return horizon;
  }

  /** Wires port `fromPort` of node `from`, if it is local, to its peer here or elsewhere. */
  private join(
    from: number,
    fromPort: number,
    to: number,
    toPort: number,
    latencyPs: TimePs,
    sink: WindowSink | undefined,
  ): void {
    const port = this.nodes[from]?.ports[fromPort];
    if (!port) return;
    assert(port.latencyPs === latencyPs, `port ${fromPort} of node ${from} has another latency`);
    port.returnPs = this.distance[to * this.count + from];
    const peer = this.nodes[to]?.ports[toPort];
    if (peer) port.outlet = new InboxOutlet(this, peer, to);
    else {
      assert(sink !== undefined, `node ${to} runs elsewhere and no window leads there`);
      port.outlet = new WindowOutlet(this, sink, to, toPort);
    }
  }
}

/** Hands frames straight to the peer's inbox: both nodes run in this process. */
class InboxOutlet implements Outlet {
  constructor(
    private readonly partition: Partition,
    private readonly peer: Port,
    private readonly peerNode: number,
  ) {}

  accept(arrivalPs: TimePs, frame: number, isInert: boolean): void {
    this.peer.deliver(arrivalPs, frame, isInert);
    if (!isInert) this.partition.arriving(this.peerNode, arrivalPs);
  }
}

/** Puts frames into the window and remembers that the peer has something to do when they arrive. */
class WindowOutlet implements Outlet {
  constructor(
    private readonly partition: Partition,
    private readonly sink: WindowSink,
    private readonly peer: number,
    private readonly peerPort: number,
  ) {}

  accept(arrivalPs: TimePs, frame: number): void {
    this.partition.expect(this.peer, arrivalPs);
    this.sink.put(this.peer, this.peerPort, arrivalPs, frame);
  }
}

/** Floyd-Warshall over the channels; worlds have few nodes and this runs once. */
function shortestLatencies(count: number, channels: readonly ChannelShape[]): Float64Array {
  const distance = new Float64Array(count * count).fill(NEVER);
  for (const { a, b, latencyPs } of channels) {
    distance[a * count + b] = Math.min(distance[a * count + b], latencyPs);
    distance[b * count + a] = Math.min(distance[b * count + a], latencyPs);
  }
  for (let k = 0; k < count; k++) {
    for (let i = 0; i < count; i++) {
      for (let j = 0; j < count; j++) {
        const through = distance[i * count + k] + distance[k * count + j];
        if (through < distance[i * count + j]) distance[i * count + j] = through;
      }
    }
  }
  return distance;
}
