/** A partition on its own; `test/channel/synchronisation.test.ts` holds it against an oracle. */
import { describe, expect, it } from 'vitest';
import { type ChannelShape, NEVER, Node, Partition, type Port } from '../../transport/index.ts';

/** A chain of nodes with one port at each side; `latencies[i]` joins i and i + 1. */
class Chain {
  readonly nodes: Node[] = [];
  readonly channels: ChannelShape[] = [];
  readonly fired: [string, number][] = [];
  readonly slots: number[] = [];
  readonly out: Port[] = [];

  constructor(latencies: readonly number[]) {
    for (let i = 0; i <= latencies.length; i++) {
      const node = new Node(`n${i}`, 1);
      const left = latencies[i - 1];
      const right = latencies[i];
      const take = (port: () => Port) => ({
        onFrame: (_: number, now: number) => {
          port().take();
          this.fired.push([`${node.name} frame`, now]);
        },
      });
      const ports: Port[] = [];
      for (const latencyPs of [left, right]) {
        if (latencyPs === undefined) continue;
        const index = ports.length;
        ports.push(
          node.addPort(
            latencyPs,
            take(() => ports[index]),
          ),
        );
      }
      this.out.push(ports[ports.length - 1]);
      const slot = node.addEngine({
        fire: (now) => {
          node.queue.arm(slot, NEVER);
          this.fired.push([node.name, now]);
        },
      });
      this.slots.push(slot);
      this.nodes.push(node);
    }
    latencies.forEach((latencyPs, a) => {
      this.channels.push({ a, aPort: a === 0 ? 0 : 1, b: a + 1, bPort: 0, latencyPs });
    });
  }
}

describe('Partition', () => {
  it('refuses a channel without latency', () => {
    expect(() => new Chain([0])).toThrow('needs a latency above zero');
  });

  it('runs to the limit, included, and not beyond', () => {
    const chain = new Chain([10]);
    chain.nodes[0].queue.arm(chain.slots[0], 100);
    chain.nodes[1].queue.arm(chain.slots[1], 101);
    const partition = new Partition(chain.nodes, chain.channels, undefined, 100);
    expect(partition.finished()).toBe(false);
    expect(partition.advance(1000)).toBe(false);
    expect(chain.fired).toEqual([['n0', 100]]);
    expect(partition.finished()).toBe(true);
  });

  it('stops when its budget is spent, and goes on from there', () => {
    const chain = new Chain([10]);
    chain.nodes[0].queue.arm(chain.slots[0], 1);
    chain.nodes[1].queue.arm(chain.slots[1], 2);
    const partition = new Partition(chain.nodes, chain.channels);
    expect(partition.advance(1)).toBe(true);
    expect(chain.fired.length).toBe(1);
    while (partition.advance(1));
    expect(chain.fired.length).toBe(2);
  });

  it('runs a node exactly as far as the promises of others reach it', () => {
    const chain = new Chain([10, 5]);
    const sink = { put: () => {} };
    const partition = new Partition([chain.nodes[0], undefined, undefined], chain.channels, sink);
    partition.promise(1, 1000);
    partition.promise(2, 100);
    expect(partition.earliestElsewhere(0)).toBe(115);
    expect(partition.earliestElsewhere(1)).toBe(105);
    for (const [at, runs] of [
      [114, true],
      [115, false],
    ] as const) {
      chain.fired.length = 0;
      chain.nodes[0].queue.arm(chain.slots[0], at);
      partition.advance(10);
      expect(chain.fired.length === 1).toBe(runs);
    }
  });

  it('does not outrun the answer to what it sends', () => {
    const chain = new Chain([10]);
    const [node] = chain.nodes;
    const put: number[] = [];
    const sink = { put: (_node: number, _port: number, at: number) => put.push(at) };
    const partition = new Partition([node, undefined], chain.channels, sink);
    partition.promise(1, NEVER);
    const sender = node.addEngine({
      fire: (now) => {
        node.queue.arm(sender, NEVER);
        chain.out[0].send(now + 10, 0);
      },
    });
    node.queue.arm(sender, 50);
    node.queue.arm(chain.slots[0], 70);
    partition.advance(10);
    expect([put, chain.fired]).toEqual([[60], []]);
    expect(partition.earliest(1)).toBe(60);
    node.queue.arm(chain.slots[0], 69);
    partition.advance(10);
    expect(chain.fired).toEqual([['n0', 69]]);
  });

  it('says where and when a frame would outrun its channel', () => {
    const chain = new Chain([10]);
    new Partition(chain.nodes, chain.channels);
    chain.nodes[0].now = 5;
    expect(() => chain.out[0].send(14, 0)).toThrow('a frame outruns its channel (node n0, 5 ps)');
  });
});
