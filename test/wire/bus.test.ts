/** Messages on the bus: the table, its bytes, its description in docs/WIRE.md, and what is refused. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  BURST,
  BURST_MAX_PAGES,
  BUS_BAD_FIELD,
  BUS_BAD_LENGTH,
  BUS_DMA_READ,
  BUS_MAX_BYTES,
  BUS_TRUNCATED,
  BUS_UNKNOWN_TYPE,
  busLayouts,
  decodeBus,
  encodeBus,
  FRAME_WORDS,
  FramePool,
  PAYLOAD_BYTES,
} from '../../transport/index.ts';

const shape = fc.record({
  layout: fc.constantFrom(...busLayouts),
  words: fc.array(fc.integer(), { minLength: 10, maxLength: 10 }),
  longs: fc.array(fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }), {
    minLength: 2,
    maxLength: 2,
  }),
  first: fc.integer({ min: 0, max: 4095 }),
  bytes: fc.uint8Array({ minLength: 1, maxLength: 9000 }),
});

type Shape = typeof shape extends fc.Arbitrary<infer T> ? T : never;

function frameOf(pool: FramePool, { layout, words, longs, first, bytes }: Shape): number {
  const frame = pool.allocate();
  const base = frame * FRAME_WORDS;
  pool.words[base] = layout.type;
  layout.words.forEach((_, i) => {
    pool.words[base + 1 + i] = words[i];
  });
  layout.longs.forEach((_, i) => {
    pool.doubles[frame * 2 + i] = longs[i];
  });
  if (layout.trailer === 'none') return frame;
  pool.words[base + PAYLOAD_BYTES] = bytes.length;
  if (layout.trailer === 'data')
    pool.words[base + BURST] = pool.burstFromBytes(bytes, 0, bytes.length);
  else {
    const burst = pool.allocateBurst(first, bytes.length);
    for (let i = 0; i < pool.burstPages(burst); i++) {
      pool.burstEntries[burst * BURST_MAX_PAGES + i] = words[i % 10];
    }
    pool.words[base + BURST] = burst;
  }
  return frame;
}

describe('bus messages', () => {
  it('come back as they were sent, whatever was in the buffer', () => {
    fc.assert(
      fc.property(shape, (s) => {
        const pool = new FramePool(undefined, 8, 8);
        const frame = frameOf(pool, s);
        const out = new Uint8Array(BUS_MAX_BYTES + 8).fill(0xa5);
        const end = encodeBus(pool, frame, out, 3);
        const back = decodeBus(pool, out, 3, end);
        expect(back).toBeGreaterThanOrEqual(0);
        const again = new Uint8Array(BUS_MAX_BYTES + 8);
        expect(encodeBus(pool, back, again, 3)).toBe(end);
        expect(Buffer.compare(out.subarray(3, end), again.subarray(3, end))).toBe(0);
        for (let cut = 3; cut < Math.min(end, 100); cut++) {
          expect(decodeBus(pool, out, 3, cut)).toBeLessThan(0);
        }
        pool.release(frame);
        pool.release(back);
        expect([pool.framesInUse, pool.burstsInUse]).toEqual([0, 0]);
      }),
      { numRuns: 300, seed: 1 },
    );
  });

  it('are refused with the reason', () => {
    const pool = new FramePool(undefined, 8, 8);
    const read = (change: (view: DataView) => void, length = 12 + 20 + 8 + 4): number => {
      const bytes = new Uint8Array(length);
      const view = new DataView(bytes.buffer);
      view.setUint32(0, BUS_DMA_READ, true);
      view.setUint32(4, 100, true);
      change(view);
      return decodeBus(pool, bytes, 0, bytes.length);
    };
    expect(read(() => {})).toBeGreaterThanOrEqual(0);
    expect(read((v) => v.setUint32(0, 999, true))).toBe(BUS_UNKNOWN_TYPE);
    expect(read((v) => v.setUint32(4, 70_000, true))).toBe(BUS_BAD_FIELD);
    expect(read((v) => v.setUint32(8, 4096, true))).toBe(BUS_BAD_FIELD);
    expect(read((v) => v.setUint32(4, 5000, true))).toBe(BUS_BAD_LENGTH);
    expect(read((v) => v.setUint32(36, 0x200000, true))).toBe(BUS_BAD_FIELD);
    expect(read(() => {}, 20)).toBe(BUS_TRUNCATED);
    expect(read(() => {}, 11)).toBe(BUS_TRUNCATED);
  });

  it('stand in docs/WIRE.md exactly as in the table', () => {
    const text = readFileSync(new URL('../../docs/WIRE.md', import.meta.url), 'utf8');
    for (const { type, name, towards, words, longs, trailer } of busLayouts) {
      const fields = [...words.map((w) => `\`${w}\``), ...longs.map((l) => `\`${l}\` u64`)].join(
        ', ',
      );
      expect(text).toContain(`| ${type} | ${name} | ${towards} | ${fields} | ${trailer} |`);
    }
  });
});
