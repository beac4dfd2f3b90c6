/** Windows: what is written is read back, and nothing else is taken for one. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  BURST,
  BUS_DMA_WRITE,
  Failure,
  FRAME_WORDS,
  FramePool,
  Node,
  PAYLOAD_BYTES,
  Partition,
  RC_SEND_ONLY,
  TRAIN_COUNT,
  TRAIN_SPACING,
  W_OPCODE,
  W_PSN,
} from '../../transport/index.ts';
import { type FramedChannel, WindowWriter } from '../../transport/wire/window.ts';
import { WindowReader } from '../../transport/wire/window-reader.ts';

const LATENCY_PS = 1000;
const channels: FramedChannel[] = [
  { a: 0, aPort: 0, b: 1, bPort: 0, latencyPs: LATENCY_PS, kind: 'wire' },
  { a: 0, aPort: 1, b: 1, bPort: 1, latencyPs: LATENCY_PS, kind: 'bus' },
];

interface Sent {
  readonly bus: boolean;
  readonly gapPs: number;
  readonly number: number;
  readonly bytes: Uint8Array;
  readonly count: number;
}
interface Received {
  readonly port: number;
  readonly now: number;
  readonly number: number;
  readonly bytes: number[];
}

const sent: fc.Arbitrary<Sent> = fc.record({
  bus: fc.boolean(),
  gapPs: fc.nat(5000),
  number: fc.nat(0xffff00),
  bytes: fc.uint8Array({ minLength: 1, maxLength: 40 }),
  count: fc.integer({ min: 1, max: 3 }),
});

/** Node 0 with a writer towards node 1, and node 1 with a reader. */
class Sides {
  readonly pool = new FramePool(undefined, 512, 512);
  readonly farPool = new FramePool(undefined, 512, 512);
  readonly writer = new WindowWriter(this.pool, 2, channels, [0]);
  readonly farWriter = new WindowWriter(this.farPool, 2, channels, [1]);
  readonly received: Received[] = [];
  readonly node = new Node('near', 1);
  readonly farNode = new Node('far', 1);
  readonly partition: Partition;
  readonly farPartition: Partition;
  readonly reader: WindowReader;

  constructor() {
    for (let port = 0; port < 2; port++) {
      this.node.addPort(LATENCY_PS, { onFrame: () => {} });
      this.farNode.addPort(LATENCY_PS, {
        onFrame: (frame, now) => this.receive(port, frame, now),
      });
    }
    this.partition = new Partition([this.node, undefined], channels, this.writer);
    const nodes = [undefined, this.farNode];
    this.farPartition = new Partition(nodes, channels, this.farWriter);
    this.reader = new WindowReader(this.farPool, this.farPartition, nodes, channels);
  }

  /** Sends everything and returns the window; `at` counts on. */
  write(frames: readonly Sent[], round = 0): Uint8Array {
    let at = LATENCY_PS;
    for (const { bus, gapPs, number, bytes, count } of frames) {
      const frame = this.pool.allocate();
      const base = frame * FRAME_WORDS;
      const words = this.pool.words;
      at += gapPs;
      words[base + PAYLOAD_BYTES] = bytes.length;
      if (bus) {
        words[base] = BUS_DMA_WRITE;
        words[base + 1] = number;
        words[base + BURST] = this.pool.burstFromBytes(bytes, 0, bytes.length);
        this.node.ports[1].send(at, frame);
        continue;
      }
      const train = new Uint8Array(bytes.length * count);
      for (let i = 0; i < count; i++) train.set(bytes, i * bytes.length);
      words[base + W_OPCODE] = RC_SEND_ONLY;
      words[base + W_PSN] = number;
      words[base + TRAIN_COUNT] = count;
      words[base + TRAIN_SPACING] = 7;
      words[base + BURST] = this.pool.burstFromBytes(train, 0, train.length);
      const lastPs = at + 7 * (count - 1);
      this.node.ports[0].sendTrain(this.node.now, at, lastPs, frame);
      at = lastPs;
    }
    return this.writer.flush(round, this.partition);
  }

  read(bytes: Uint8Array, round = 0): void {
    this.reader.read(bytes, round);
    this.reader.apply(this.farWriter);
    while (this.farPartition.advance(100));
  }

  private receive(port: number, frame: number, now: number): void {
    this.farNode.ports[port].take();
    const { words } = this.farPool;
    const base = frame * FRAME_WORDS;
    const bytes = new Uint8Array(words[base + PAYLOAD_BYTES]);
    this.farPool.burstToBytes(words[base + BURST], 0, bytes.length, bytes, 0);
    const number = words[base + (port === 1 ? 1 : W_PSN)];
    this.received.push({ port, now, number, bytes: [...bytes] });
    this.farPool.release(frame);
  }
}

/** What node 1 should get, packet by packet. */
function expected(frames: readonly Sent[]): Received[] {
  let now = LATENCY_PS;
  return frames.flatMap(({ bus, gapPs, number, bytes, count }) => {
    now += gapPs;
    const packets = bus ? 1 : count;
    return Array.from({ length: packets }, (_, i) => {
      if (i > 0) now += 7;
      return { port: bus ? 1 : 0, now, number: number + i, bytes: [...bytes] };
    });
  });
}

const byTime = (list: Received[]): Received[] =>
  list.sort((x, y) => x.now - y.now || x.port - y.port);

/** The code with which a fresh reader refuses `bytes`, or 'taken'. */
function verdict(bytes: Uint8Array, round = 0): string {
  const sides = new Sides();
  try {
    sides.reader.read(bytes, round);
  } catch (error) {
    expect(sides.farPool.framesInUse).toBe(0);
    expect(sides.farPool.burstsInUse).toBe(0);
    expect(error).toBeInstanceOf(Failure);
    return (error as Failure).code;
  }
  return 'taken';
}

const example: Sent[] = [
  { bus: false, gapPs: 1, number: 5, bytes: Uint8Array.of(1, 2, 3), count: 2 },
  { bus: true, gapPs: 2, number: 6, bytes: Uint8Array.of(4), count: 1 },
];

describe('a window', () => {
  it('comes out as it went in', () => {
    fc.assert(
      fc.property(fc.array(sent, { maxLength: 20 }), (frames) => {
        const sides = new Sides();
        sides.read(sides.write(frames));
        expect(byTime(sides.received)).toEqual(byTime(expected(frames)));
        expect(sides.pool.framesInUse + sides.farPool.framesInUse).toBe(0);
      }),
      { seed: 4, numRuns: 100 },
    );
  });

  it('does not depend on what its buffer held before', () => {
    const dirty = new Sides();
    // The writer has two buffers.
    for (let round = 0; round < 2; round++) {
      const frame = dirty.pool.allocate();
      const base = frame * FRAME_WORDS;
      dirty.pool.words[base] = BUS_DMA_WRITE;
      dirty.pool.words[base + PAYLOAD_BYTES] = 60_000;
      const junk = new Uint8Array(60_000).fill(0xee);
      dirty.pool.words[base + BURST] = dirty.pool.burstFromBytes(junk, 0, junk.length);
      dirty.writer.put(1, 1, LATENCY_PS, frame);
      dirty.writer.flush(round, dirty.partition);
    }
    expect(Buffer.compare(dirty.write(example, 2), new Sides().write(example, 2))).toBe(0);
  });

  it('is refused when any part of it is missing, or anything follows', () => {
    const whole = new Sides().write(example).slice();
    expect(verdict(whole)).toBe('taken');
    for (let length = 0; length < whole.length; length++) {
      expect(verdict(whole.subarray(0, length))).toBe('E_PEER_PROTOCOL');
    }
    expect(verdict(Uint8Array.of(...whole, 0))).toBe('E_PEER_PROTOCOL');
  });

  it('is refused or taken, never worse, whatever bit is wrong', () => {
    const whole = new Sides().write(example).slice();
    for (let bit = 0; bit < whole.length * 8; bit++) {
      const bent = whole.slice();
      bent[bit >> 3] ^= 1 << (bit & 7);
      expect(['taken', 'E_PEER_PROTOCOL']).toContain(verdict(bent));
    }
  });

  it('is refused when it is random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(verdict(bytes)).toBe('E_PEER_PROTOCOL');
        if (bytes.length > 8) bytes.set([1, 0, 1, 0, 0, 0, 0, 0]);
        expect(['taken', 'E_PEER_PROTOCOL']).toContain(verdict(bytes));
      }),
      { seed: 5, numRuns: 300 },
    );
  });

  const firstFrame = 12 + 10;
  const bends: [string, (view: DataView) => void][] = [
    ['another round', (view) => view.setUint32(4, 1, true)],
    ['too many frames', (view) => view.setUint32(8, 4_000_000_000, true)],
    ['a promise for another node', (view) => view.setUint16(12, 1, true)],
    ['a promise that is no number', (view) => view.setFloat64(14, Number.NaN, true)],
    ['a promise before time 0', (view) => view.setFloat64(14, -1, true)],
    ['an unknown node', (view) => view.setUint16(firstFrame, 99, true)],
    ["the sender's own node", (view) => view.setUint16(firstFrame, 0, true)],
    ['an unknown port', (view) => view.setUint8(firstFrame + 2, 200)],
    ['the wrong kind', (view) => view.setUint8(firstFrame + 3, 1)],
    ['a fraction of a picosecond', (view) => view.setFloat64(firstFrame + 4, 2000.5, true)],
    ['an endless arrival', (view) => view.setFloat64(firstFrame + 4, Infinity, true)],
    ['an arrival before the latency', (view) => view.setFloat64(firstFrame + 4, 999, true)],
    ['an arrival out of order', (view) => view.setFloat64(firstFrame + 4, 9000, true)],
    ['a length beyond the end', (view) => view.setUint32(firstFrame + 12, 1_000_000, true)],
  ];
  it.each(bends)('is refused with %s', (_, bend) => {
    const bytes = new Sides().write(example).slice();
    bend(new DataView(bytes.buffer));
    expect(verdict(bytes)).toBe('E_PEER_PROTOCOL');
  });

  it('is refused when it goes back on an earlier promise', () => {
    const sides = new Sides();
    sides.node.queue.arm(sides.node.addEngine({ fire: () => {} }), 50_000);
    sides.read(sides.write([]), 0);
    const frame = sides.pool.allocate();
    sides.pool.words[frame * FRAME_WORDS + W_OPCODE] = RC_SEND_ONLY;
    sides.writer.put(1, 0, 50_999, frame);
    const bytes = sides.writer.flush(1, sides.partition);
    expect(() => sides.reader.read(bytes, 1)).toThrow('arrival 50999 ps');
  });
});
