/** The edge of a world: what it lets in, what it drops and counts, and whom it asks. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { linkLocalOf, parseIp, parseMac } from '../../harness/gateway/addresses.ts';
import { ExternalPeer, type ExternalPeerConfig } from '../../harness/gateway/external-peer.ts';
import { Impairment } from '../../harness/gateway/impairment.ts';
import {
  BlockPool,
  FRAME_WORDS,
  FramePool,
  formatMac,
  get16,
  MS,
  NEVER,
  Node,
  Partition,
  type Port,
  RC_SEND_ONLY,
  readCapture,
  rxeIcrcRules,
  SEC,
  US,
  W_LIDS,
  W_OPCODE,
} from '../../transport/index.ts';
import { captureBytes, capturePath } from '../captures/captures.ts';

const LATENCY_PS = 1 * US;
const ip = (text: string) => parseIp(text) as Uint8Array;
const guestMac = parseMac('52:54:00:00:00:02') as Uint8Array;

/** An edge between a wire that keeps what comes, and an adapter that does. */
class Bench {
  readonly pool = new FramePool(new BlockPool(256), 1024, 512);
  readonly edge: ExternalPeer;
  readonly sent: { bytes: Uint8Array; now: number }[] = [];
  /** Opcodes and LIDs of the packets that have reached the adapter. */
  readonly taken: { opcode: number; lids: number; now: number }[] = [];
  private readonly adapter = new Node('a.hca', 1);
  private readonly port: Port;
  private readonly partition: Partition;
  private reachedPs = 0;

  constructor(config: Partial<ExternalPeerConfig> = {}) {
    const own = { mac: guestMac, ipv4: ip('192.0.2.2'), ipv6: linkLocalOf(guestMac) };
    this.edge = new ExternalPeer(
      {
        name: 'b',
        seed: 1,
        latencyPs: LATENCY_PS,
        rateGbps: 10,
        mtuBytes: 1500,
        own,
        lid: 1,
        icrcRules: rxeIcrcRules,
        ...config,
      },
      this.pool,
    );
    this.edge.observer = { sent: (bytes, now) => this.sent.push({ bytes, now }) };
    this.port = this.adapter.addPort(LATENCY_PS, {
      onFrame: (frame, now) => {
        this.port.take();
        const { words } = this.pool;
        const base = frame * FRAME_WORDS;
        this.taken.push({ opcode: words[base + W_OPCODE], lids: words[base + W_LIDS], now });
        this.pool.release(frame);
      },
    });
    const channel = { a: 0, aPort: 0, b: 1, bPort: 0, latencyPs: LATENCY_PS };
    this.partition = new Partition([this.adapter, this.edge.node], [channel]);
  }

  run(untilPs = NEVER): void {
    this.reachedPs = untilPs;
    while (this.partition.advance(1000, untilPs));
  }

  /** The adapter sends a packet to `lid` now. */
  send(lid: number): void {
    const frame = this.pool.allocate();
    this.pool.words[frame * FRAME_WORDS + W_OPCODE] = RC_SEND_ONLY;
    this.pool.words[frame * FRAME_WORDS + W_LIDS] = (1 << 16) | lid;
    const atPs = this.reachedPs + LATENCY_PS;
    this.port.sendTrain(this.reachedPs, atPs, atPs, frame);
  }
}

const route = (lid: number, text: string, change = {}) => ({
  lid,
  ip: ip(text),
  trafficClass: 0,
  hopLimit: 64,
  flowLabel: 0,
  ...change,
});

/** Frames of captures that guest 1 sent to guest 2 and that are RoCEv2. */
function fromGuest1(name: string): Uint8Array[] {
  return [...readCapture(captureBytes(name), capturePath(name))]
    .map(({ bytes }) => new Uint8Array(bytes))
    .filter((bytes) => bytes[5] === 2 && bytes[11] === 1 && bytes.length > 60);
}

describe('packets that come in', () => {
  it('reach the adapter, and those that are not whole do not', () => {
    const bench = new Bench();
    const frames = fromGuest1('rc_write').slice(0, 10);
    bench.edge.addRoute(1, route(7, '192.0.2.1'));
    frames.forEach((frame, i) => {
      bench.edge.arrive(10 + i, frame);
    });
    const flipped = (frames[0] as Uint8Array).slice();
    flipped[flipped.length - 8] ^= 1;
    bench.edge.arrive(100, flipped);
    bench.edge.arrive(101, (frames[0] as Uint8Array).slice(0, 50));
    bench.edge.arrive(102, new Uint8Array(2000));
    bench.edge.arrive(103, new Uint8Array(3));
    bench.run();
    expect(bench.taken.length).toBe(frames.length);
    // From the LID of its sender to ours, at the pace of the line.
    for (const { lids } of bench.taken) expect(lids).toBe((7 << 16) | 1);
    expect(bench.taken[1]?.now ?? 0).toBeGreaterThan((bench.taken[0]?.now ?? 0) + 100_000);
    expect(bench.edge.counters).toMatchObject({
      frames_in: frames.length + 4,
      roce_in: frames.length + 1,
      bad_icrc: 1,
      malformed: 1,
      giants: 1,
      runts: 1,
    });
    expect(bench.pool.framesInUse).toBe(0);
    expect(bench.pool.burstsInUse).toBe(0);
  });

  it("come with rxe's own ICRC of a FLUSH only where the peer is rxe", () => {
    for (const isRxe of [true, false]) {
      const bench = new Bench({ icrcRules: isRxe ? rxeIcrcRules : [] });
      const frames = fromGuest1('rc_flush');
      frames.forEach((frame, i) => {
        bench.edge.arrive(10 + i, frame);
      });
      bench.run();
      expect(bench.taken.length).toBe(frames.length - (isRxe ? 0 : 1));
      expect(bench.edge.counters.bad_icrc).toBe(isRxe ? 0 : 1);
    }
  });

  it('of random bytes are counted, and nothing else', () => {
    const frame = fromGuest1('rc_write')[0] as Uint8Array;
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            fc.uint8Array({ maxLength: 100 }),
            fc.tuple(fc.nat(frame.length - 1), fc.nat(255)).map(([at, value]) => {
              const copy = frame.slice();
              copy[at] = value;
              return copy;
            }),
            fc.nat(frame.length).map((length) => frame.slice(0, length)),
          ),
          { maxLength: 20 },
        ),
        (frames) => {
          const bench = new Bench();
          frames.forEach((bytes, i) => {
            bench.edge.arrive(10 + i, bytes);
          });
          bench.run();
          const { counters } = bench.edge;
          const { frames_in, roce_in, bad_icrc, malformed } = counters;
          expect(frames_in).toBe(frames.length);
          expect(bench.taken.length + bad_icrc).toBeLessThanOrEqual(roce_in);
          const others =
            counters.arp_in +
            counters.neighbour_in +
            counters.icmp_in +
            counters.runts +
            counters.giants +
            counters.foreign_destination +
            counters.foreign_protocol;
          // Each is one thing: a packet that was taken, one that was damaged, or not a packet.
          expect(bench.taken.length + bad_icrc + malformed + others).toBe(frames_in);
          expect(bench.pool.framesInUse).toBe(0);
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('packets that go out', () => {
  it('wait for ARP, and go with the addresses that it brought', () => {
    const bench = new Bench();
    bench.edge.addRoute(1, route(9, '192.0.2.1', { trafficClass: 0x6a, flowLabel: 0x12345 }));
    bench.run(1000);
    bench.send(9);
    bench.run(MS);
    expect(bench.sent.length).toBe(1);
    expect(get16(bench.sent[0]?.bytes as Uint8Array, 12)).toBe(0x0806);
    const answer = [...readCapture(captureBytes('filterdump_rc_pingpong'), 'x')]
      .map(({ bytes }) => bytes)
      .find((bytes) => get16(bytes, 12) === 0x0806 && bytes[5] === 2) as Uint8Array;
    bench.edge.arrive(2 * MS, answer);
    bench.run(3 * MS);
    const packet = bench.sent[1]?.bytes as Uint8Array;
    expect(formatMac(packet)).toBe('52:54:00:00:00:01');
    expect(formatMac(packet, 6)).toBe('52:54:00:00:00:02');
    expect([...packet.subarray(26, 34)]).toEqual([192, 0, 2, 2, 192, 0, 2, 1]);
    expect(packet[15]).toBe(0x6a);
    // The flow label becomes the UDP source port (rdma_flow_label_to_udp_sport).
    expect(get16(packet, 34)).toBe(0xe341);
    expect(get16(packet, 36)).toBe(4791);
  });

  it('are given up when nobody answers, and asked for again by the next', () => {
    const bench = new Bench();
    bench.edge.addRoute(1, route(9, 'fe80::1'));
    bench.run(1000);
    for (let i = 0; i < 200; i++) bench.send(9);
    bench.run(10 * SEC);
    const { counters } = bench.edge;
    expect(counters).toMatchObject({ questions_out: 3, unresolved_drops: 200, roce_out: 0 });
    expect(bench.pool.framesInUse).toBe(0);
    bench.send(9);
    bench.run(20 * SEC);
    expect(counters).toMatchObject({ questions_out: 6, unresolved_drops: 201 });
  });

  it('have nowhere to go without a route, and no room beyond the MTU', () => {
    const bench = new Bench({ mtuBytes: 576 });
    bench.send(33);
    bench.run(MS);
    expect(bench.edge.counters.no_route).toBe(1);
  });

  it('go at once where the MAC is given, and to the new one when it moves', () => {
    const bench = new Bench();
    bench.edge.addRoute(1, route(9, '192.0.2.1'), guestMac);
    bench.run(1000);
    bench.send(9);
    bench.run(MS);
    expect(bench.sent.map(({ bytes }) => formatMac(bytes))).toEqual(['52:54:00:00:00:02']);
    const request = [...readCapture(captureBytes('filterdump_rc_pingpong'), 'x')]
      .map(({ bytes }) => bytes)
      .find((bytes) => get16(bytes, 12) === 0x0806 && bytes[5] === 2) as Uint8Array;
    bench.edge.arrive(2 * MS, request);
    bench.run(3 * MS);
    bench.send(9);
    bench.run(4 * MS);
    expect(formatMac(bench.sent[1]?.bytes as Uint8Array)).toBe('52:54:00:00:00:01');
  });
});

describe('an impairment', () => {
  const spec = {
    dropPpm: 100_000,
    duplicatePpm: 50_000,
    corruptPpm: 50_000,
    reorderPpm: 50_000,
    reorderPs: MS,
    drop: [],
    seed: 3,
  };

  it('hits the share of packets that it says, the same ones for the same seed', () => {
    const fates = (seed: number) => {
      const impairment = new Impairment({ ...spec, seed }, 'send');
      return Array.from({ length: 10_000 }, () => impairment.next());
    };
    const first = fates(3);
    expect(fates(3)).toEqual(first);
    expect(fates(4)).not.toEqual(first);
    const lost = first.filter(({ copies }) => copies === 0).length;
    expect(lost).toBeGreaterThan(800);
    expect(lost).toBeLessThan(1200);
    expect(first.filter(({ copies }) => copies === 2).length).toBeGreaterThan(300);
    expect(first.filter(({ isDamaged }) => isDamaged).length).toBeGreaterThan(300);
    expect(first.filter(({ delayPs }) => delayPs > 0).length).toBeGreaterThan(300);
  });

  it('loses the packets that it names, doubles, damages and delays at the edge', () => {
    const bench = new Bench();
    const none = { dropPpm: 0, duplicatePpm: 0, corruptPpm: 0, reorderPpm: 0 };
    const frames = fromGuest1('rc_write').slice(0, 6);
    bench.edge.impair(1, 'receive', { ...spec, ...none, drop: [2, 3] });
    frames.forEach((frame, i) => {
      bench.edge.arrive(10 + i, frame);
    });
    bench.run(MS);
    expect(bench.taken.length).toBe(4);
    bench.edge.impair(2 * MS, 'both', { ...spec, ...none, duplicatePpm: 1_000_000 });
    bench.edge.arrive(3 * MS, frames[0] as Uint8Array);
    bench.run(4 * MS);
    expect(bench.taken.length).toBe(6);
    bench.edge.impair(5 * MS, 'both', { ...spec, ...none, corruptPpm: 1_000_000 });
    bench.edge.arrive(6 * MS, frames[0] as Uint8Array);
    bench.run(7 * MS);
    expect(bench.taken.length).toBe(6);
    const { bad_icrc, malformed } = bench.edge.counters;
    expect(bad_icrc + malformed).toBe(1);
    bench.edge.impair(8 * MS, 'both', { ...spec, ...none, reorderPpm: 1_000_000 });
    bench.edge.arrive(9 * MS, frames[0] as Uint8Array);
    bench.edge.impair(9 * MS + 1, 'both', { ...spec, ...none });
    bench.edge.arrive(9 * MS + 2, frames[1] as Uint8Array);
    bench.run(20 * MS);
    expect(bench.taken.length).toBe(8);
    expect((bench.taken[7]?.now ?? 0) - (bench.taken[6]?.now ?? 0)).toBeGreaterThan(MS / 2);
    expect(bench.edge.counters).toMatchObject({
      impaired_drops: 2,
      impaired_duplicates: 1,
      impaired_corruptions: 1,
      impaired_delays: 1,
    });
    expect(bench.pool.framesInUse).toBe(0);
  });
});

describe('the digest of an edge', () => {
  it('does not depend on when its inputs were handed over', () => {
    const frames = fromGuest1('rc_write').slice(0, 20);
    const early = new Bench();
    frames.forEach((frame, i) => {
      early.edge.arrive(1000 * (i + 1), frame);
    });
    early.run();
    const late = new Bench();
    frames.forEach((frame, i) => {
      late.run(1000 * (i + 1));
      late.edge.arrive(1000 * (i + 1), frame);
    });
    late.run();
    expect(late.edge.node.digest.toString()).toBe(early.edge.node.digest.toString());
    const other = new Bench();
    frames.forEach((frame, i) => {
      other.edge.arrive(1000 * (i + 1) + (i === 7 ? 1 : 0), frame);
    });
    other.run();
    expect(other.edge.node.digest.toString()).not.toBe(early.edge.node.digest.toString());
  });
});
