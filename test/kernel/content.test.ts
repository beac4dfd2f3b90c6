import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ContentStore } from '../../kernel/mm/physical/content.ts';
import { patternByte } from '../../kernel/mm/physical/pattern.ts';
import { BLOCK_BYTES, BlockPool, MessageHash, ZERO_BLOCK } from '../../transport/index.ts';

const PAGES = 4;

type Step =
  | { kind: 'zero'; page: number }
  | { kind: 'pattern'; page: number; seed: number; offset: number }
  | { kind: 'part'; page: number; within: number; length: number; seed: number; offset: number }
  | { kind: 'move'; page: number; to: number }
  | { kind: 'sample'; page: number };

const page = fc.nat(PAGES - 1);
const seed = fc.integer({ min: 0, max: 0xffffffff });
const offset = fc.oneof(fc.nat(20_000), fc.nat(2 ** 40));
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('zero' as const), page }),
  fc.record({ kind: fc.constant('pattern' as const), page, seed, offset }),
  fc.record({ page, within: fc.nat(4095), length: fc.nat(4096), seed, offset }).map((part) => ({
    ...part,
    kind: 'part' as const,
    length: Math.min(part.length, BLOCK_BYTES - part.within),
  })),
  fc.record({ kind: fc.constant('move' as const), page, to: page }),
  fc.record({ kind: fc.constant('sample' as const), page }),
);

/** What a page holds, byte by byte, with nothing lazy about it. */
function patternBytes(length: number, patternSeed: number, from: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => patternByte(patternSeed, from + i));
}

function hashOf(bytes: Uint8Array): number {
  const copy = Uint8Array.from(bytes);
  const words = new Int32Array(new Uint8Array(Math.ceil(bytes.length / 4) * 4).buffer);
  new Uint8Array(words.buffer).set(copy);
  const hash = new MessageHash();
  hash.start();
  hash.update(new Uint8Array(words.buffer), words, 0, bytes.length);
  return hash.finish();
}

function hashOfPage(store: ContentStore, which: number, within: number, length: number): number {
  const hash = new MessageHash();
  hash.start();
  store.hashInto(hash, which, within, length);
  return hash.finish();
}

describe('content of pages', () => {
  it('is the same lazy and materialised, and a sample never changes', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 25 }), fc.nat(4095), (steps, from) => {
        const blocks = new BlockPool(4);
        const store = new ContentStore(PAGES, blocks);
        const truth = Array.from({ length: PAGES }, () => new Uint8Array(BLOCK_BYTES));
        const samples: { block: number; bytes: Uint8Array }[] = [];
        for (const s of steps) {
          if (s.kind === 'zero') {
            store.setZero(s.page);
            truth[s.page].fill(0);
          } else if (s.kind === 'pattern') {
            store.setPattern(s.page, s.seed, s.offset);
            truth[s.page] = patternBytes(BLOCK_BYTES, s.seed, s.offset);
          } else if (s.kind === 'part') {
            store.writePart(s.page, s.within, s.length, s.seed, s.offset);
            truth[s.page].set(patternBytes(s.length, s.seed, s.offset), s.within);
          } else if (s.kind === 'move') {
            if (s.page === s.to) continue;
            store.moveTo(s.page, store, s.to);
            truth[s.to] = truth[s.page];
            truth[s.page] = new Uint8Array(BLOCK_BYTES);
          } else {
            const block = store.sample(s.page);
            samples.push({ block, bytes: truth[s.page].slice() });
          }
        }
        const bytesOf = (block: number) =>
          blocks.bytes.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
        for (let i = 0; i < PAGES; i++) {
          expect(hashOfPage(store, i, 0, BLOCK_BYTES)).toBe(hashOf(truth[i]));
          expect(hashOfPage(store, i, from, BLOCK_BYTES - from)).toBe(
            hashOf(truth[i].subarray(from)),
          );
          const block = store.sample(i);
          expect(Buffer.compare(bytesOf(block), truth[i])).toBe(0);
          expect(hashOfPage(store, i, 0, BLOCK_BYTES)).toBe(hashOf(truth[i]));
          blocks.release(block);
        }
        for (const { block, bytes } of samples) {
          expect(Buffer.compare(bytesOf(block), bytes)).toBe(0);
          blocks.release(block);
        }
        for (let i = 0; i < PAGES; i++) store.setZero(i);
        expect(blocks.blocksInUse).toBe(0);
        expect(bytesOf(ZERO_BLOCK).every((byte) => byte === 0)).toBe(true);
      }),
      { numRuns: 150 },
    );
  });

  it('takes no block for zeros and patterns that are only hashed', () => {
    const blocks = new BlockPool();
    const store = new ContentStore(2, blocks);
    store.setPattern(0, 7, 12);
    hashOfPage(store, 0, 0, BLOCK_BYTES);
    hashOfPage(store, 1, 0, BLOCK_BYTES);
    expect(blocks.blocksInUse).toBe(0);
  });
});
