/** What a faulty link does to a numbered stream of packets, counted at the far end. */
import { describe, expect, it } from 'vitest';
import {
  BlockPool,
  BTH_DAMAGED,
  decodePacket,
  type Engine,
  encodePacket,
  FaultInjector,
  FRAME_WORDS,
  FramePool,
  NEVER,
  Node,
  NS,
  PACKET_MAX_BYTES,
  Partition,
  type Port,
  US,
  W_BTH_FLAGS,
  W_PSN,
  WIRE_DAMAGED,
  WIRE_DELAYED,
  WIRE_DUPLICATED,
  WIRE_LOST,
  type WireFaults,
} from '../../transport/index.ts';

const LATENCY_PS = 1 * US;
/** From one packet to the next. */
const SPACING_PS = 100 * NS;

interface Arrival {
  readonly psn: number;
  readonly timePs: number;
  readonly isDamaged: boolean;
}

interface Result {
  readonly arrivals: readonly Arrival[];
  readonly psns: readonly number[];
  /** How many packets met each WIRE_* fate. */
  readonly fates: Record<number, number>;
  readonly framesInUse: number;
}

/** Sends `count` packets, one every SPACING_PS, over a link with these faults. */
function run(faults: Partial<WireFaults>, count = 20_000, seed = 1): Result {
  const pool = new FramePool(new BlockPool(64), 4096, 64);
  const sender = new Node('sender', seed);
  const receiver = new Node('receiver', seed);
  const out = sender.addPort(LATENCY_PS, { onFrame: () => undefined });
  const arrivals: Arrival[] = [];
  const inbox: Port = receiver.addPort(LATENCY_PS, {
    onFrame: (frame, now) => {
      inbox.take();
      const words = pool.words.subarray(frame * FRAME_WORDS, frame * FRAME_WORDS + FRAME_WORDS);
      const isDamaged = ((words[W_BTH_FLAGS] as number) & BTH_DAMAGED) !== 0;
      arrivals.push({ psn: words[W_PSN] as number, timePs: now, isDamaged });
      pool.release(frame);
    },
  });
  const fates: Record<number, number> = {};
  let psn = 0;
  const engine: Engine = {
    fire: (now) => {
      const frame = pool.allocate();
      pool.words[frame * FRAME_WORDS + W_PSN] = psn++;
      if (injector.isQuiet) out.send(now + LATENCY_PS, frame);
      else {
        const fate = injector.send(frame, now + LATENCY_PS);
        for (const bit of [WIRE_LOST, WIRE_DUPLICATED, WIRE_DELAYED, WIRE_DAMAGED]) {
          if ((fate & bit) !== 0) fates[bit] = (fates[bit] ?? 0) + 1;
        }
      }
      sender.queue.arm(slot, psn < count ? now + SPACING_PS : NEVER);
    },
  };
  const slot = sender.addEngine(engine);
  const injector = new FaultInjector(sender, out, pool, { lossPpm: 0, ...faults });
  sender.queue.arm(slot, 1);
  const channel = { a: 0, aPort: 0, b: 1, bPort: 0, latencyPs: LATENCY_PS };
  const partition = new Partition([sender, receiver], [channel]);
  while (partition.advance(100_000));
  const { framesInUse } = pool;
  return { arrivals, psns: arrivals.map((a) => a.psn), fates, framesInUse };
}

const near = (actual: number, expected: number, tolerance: number): void => {
  expect(actual).toBeGreaterThan(expected * (1 - tolerance));
  expect(actual).toBeLessThan(expected * (1 + tolerance));
};

/** Lengths of the runs of packets that did not arrive. */
function runsOfLosses({ psns }: Result): number[] {
  return psns.slice(1).flatMap((psn, i) => {
    const gap = psn - (psns[i] as number) - 1;
    return gap > 0 ? [gap] : [];
  });
}

describe('a link', () => {
  it('without faults delivers everything once, in order, at its time', () => {
    const { arrivals, psns, fates } = run({}, 500);
    expect(psns).toEqual(Array.from({ length: 500 }, (_, i) => i));
    expect(arrivals.every((a) => a.timePs === 1 + a.psn * SPACING_PS + LATENCY_PS)).toBe(true);
    expect(fates).toEqual({});
  });

  it.each([0, 1])('loses single packets (burst %i)', (lossBurstPackets) => {
    const result = run({ lossPpm: 50_000, lossBurstPackets });
    const lost = 20_000 - result.psns.length;
    near(lost, 1000, 0.15);
    expect(result.fates[WIRE_LOST]).toBe(lost);
    const runs = runsOfLosses(result);
    near(lost / runs.length, 1 / 0.95, 0.05);
    expect(result.psns).toEqual([...result.psns].sort((a, b) => a - b));
  });

  it.each([2, 5, 20])('loses runs of %i packets, the same share', (lossBurstPackets) => {
    const result = run({ lossPpm: 50_000, lossBurstPackets }, 200_000);
    const lost = 200_000 - result.psns.length;
    near(lost, 10_000, 0.15);
    // Two runs may touch, and the last one may be cut off.
    const runs = runsOfLosses(result);
    expect(runs.filter((length) => length % lossBurstPackets !== 0)).toEqual([]);
    near(lost / runs.length, lossBurstPackets, 0.1);
  });

  it('delivers some packets twice, the second one directly behind', () => {
    const { psns, arrivals, fates, framesInUse } = run({ duplicatePpm: 100_000 });
    const twins = arrivals.filter((a, i) => a.psn === arrivals[i - 1]?.psn);
    near(twins.length, 2000, 0.15);
    expect(fates[WIRE_DUPLICATED]).toBe(twins.length);
    expect(psns.length).toBe(20_000 + twins.length);
    expect(psns).toEqual([...psns].sort((a, b) => a - b));
    expect(framesInUse).toBe(0);
  });

  it('delivers the second one later where that is asked for', () => {
    const delayPs = 35 * SPACING_PS + 7;
    const { arrivals } = run({ duplicatePpm: 1000, duplicateDelayPs: delayPs });
    const first = new Map<number, number>();
    let twins = 0;
    for (const { psn, timePs } of arrivals) {
      const at = first.get(psn);
      if (at === undefined) first.set(psn, timePs);
      else {
        twins++;
        expect(timePs - at).toBe(delayPs);
      }
    }
    near(twins, 20, 0.6);
  });

  it.each([1, 3, 8])('delivers a late packet behind the next %i', (reorderPackets) => {
    const faults = { reorderPpm: 5000, reorderPackets, reorderDelayPs: 100 * US };
    const { psns, fates } = run(faults);
    expect([...psns].sort((a, b) => a - b)).toEqual(Array.from({ length: 20_000 }, (_, i) => i));
    const place = new Map(psns.map((psn, i) => [psn, i]));
    let late = 0;
    let newest = -1;
    for (const psn of psns) {
      if (psn > newest) newest = psn;
      else {
        late++;
        // Others that are late themselves do not count as passing it.
        const passed = psns.slice(0, place.get(psn)).filter((p) => p > psn).length;
        expect(passed).toBeGreaterThanOrEqual(reorderPackets);
        expect(passed).toBeLessThanOrEqual(reorderPackets + 2);
      }
    }
    expect(fates[WIRE_DELAYED]).toBe(late);
    near(late, 100, 0.4);
  });

  it('delivers a late packet at its time where no others come', () => {
    const { arrivals } = run({ reorderPpm: 1_000_000, reorderPackets: 3, reorderDelayPs: 5 * US });
    expect(arrivals.length).toBe(20_000);
    for (const { psn, timePs } of arrivals) {
      expect(timePs).toBe(1 + psn * SPACING_PS + LATENCY_PS + 5 * US);
    }
  });

  it('damages some packets, which still arrive', () => {
    const { psns, arrivals, fates } = run({ corruptPpm: 20_000 });
    expect(psns.length).toBe(20_000);
    const damaged = arrivals.filter((a) => a.isDamaged).length;
    near(damaged, 400, 0.2);
    expect(fates[WIRE_DAMAGED]).toBe(damaged);
  });

  it('keeps the damage of a packet that crosses to another process', () => {
    const pool = new FramePool(new BlockPool(64), 16, 16);
    const bytes = new Uint8Array(PACKET_MAX_BYTES);
    for (const flags of [0, BTH_DAMAGED]) {
      const frame = pool.allocate();
      pool.words[frame * FRAME_WORDS + W_BTH_FLAGS] = flags;
      const end = encodePacket(pool, frame, 0, bytes, 0);
      const there = decodePacket(pool, bytes, 0, end);
      expect(there).toBeGreaterThanOrEqual(0);
      expect(pool.words[there * FRAME_WORDS + W_BTH_FLAGS]).toBe(flags);
    }
  });

  it('draws each kind from a stream of its own', () => {
    const alone = run({ lossPpm: 30_000 });
    const beside = run({ lossPpm: 30_000, corruptPpm: 100_000 });
    expect(beside.psns).toEqual(alone.psns);
    expect(beside.fates[WIRE_LOST]).toBe(alone.fates[WIRE_LOST]);
  });

  it('does the same for the same seed, and something else for another', () => {
    const faults = {
      lossPpm: 20_000,
      lossBurstPackets: 3,
      duplicatePpm: 20_000,
      duplicateDelayPs: 3 * US,
      reorderPpm: 20_000,
      reorderPackets: 2,
      corruptPpm: 20_000,
    };
    expect(run(faults, 2000, 7)).toEqual(run(faults, 2000, 7));
    expect(run(faults, 2000, 7).psns).not.toEqual(run(faults, 2000, 8).psns);
  });
});
