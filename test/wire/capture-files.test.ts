/** pcap and pcapng: every variant is read, what was written comes back, and what is wrong is told. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type CapturedFrame,
  ERF_BYTES,
  ERF_INFINIBAND,
  enhancedPacketBytes,
  Failure,
  LINK_ETHERNET,
  pcapngHead,
  readCapture,
  readErf,
  writeEnhancedPacket,
  writeErf,
} from '../../transport/index.ts';
import { captureBytes } from '../captures/captures.ts';

/** Bytes put together from integers of given widths, in either byte order. */
class Builder {
  private readonly bytes: number[] = [];

  constructor(readonly little: boolean) {}

  u16(...values: readonly number[]): this {
    for (const value of values) this.int(value, 2);
    return this;
  }

  u32(...values: readonly number[]): this {
    for (const value of values) this.int(value, 4);
    return this;
  }

  raw(bytes: Iterable<number>): this {
    this.bytes.push(...bytes);
    return this;
  }

  get array(): Uint8Array {
    return Uint8Array.from(this.bytes);
  }

  private int(value: number, width: number): void {
    for (let i = 0; i < width; i++) {
      const shift = 8 * (this.little ? i : width - 1 - i);
      this.bytes.push((value / 2 ** shift) & 0xff);
    }
  }
}

interface PlainFrame {
  readonly seconds: number;
  readonly nanoseconds: number;
  readonly bytes: Uint8Array;
}

const MICRO = 0xa1b2c3d4;
const NANO = 0xa1b23c4d;

function pcap(little: boolean, magic: number, frames: readonly PlainFrame[]): Uint8Array {
  const file = new Builder(little).u32(magic).u16(2, 4).u32(0, 0, 65_536, LINK_ETHERNET);
  for (const { seconds, nanoseconds, bytes } of frames) {
    const part = magic === NANO ? nanoseconds : nanoseconds / 1000;
    file.u32(seconds, part, bytes.length, bytes.length + 7).raw(bytes);
  }
  return file.array;
}

function block(little: boolean, type: number, body: Uint8Array): Uint8Array {
  const padded = (body.length + 3) & ~3;
  const length = padded + 12;
  const pad = new Uint8Array(padded - body.length);
  return new Builder(little).u32(type, length).raw(body).raw(pad).u32(length).array;
}

const section = (little: boolean): Uint8Array =>
  block(little, 0x0a0d0d0a, new Builder(little).u32(0x1a2b3c4d).u16(1, 0).u32(-1, -1).array);

/** An interface of a section, with options as [code, bytes]. */
function description(
  little: boolean,
  linkType: number,
  ...options: readonly (readonly [code: number, value: readonly number[]])[]
): Uint8Array {
  const body = new Builder(little).u16(linkType, 0).u32(0);
  for (const [code, value] of options) {
    body.u16(code, value.length).raw(value);
    body.raw(new Uint8Array(-value.length & 3));
  }
  return block(little, 1, body.array);
}

function enhanced(little: boolean, port: number, stamp: bigint, bytes: Uint8Array): Uint8Array {
  const high = Number(stamp >> 32n);
  const low = Number(stamp & 0xffffffffn);
  const body = new Builder(little).u32(port, high, low, bytes.length, bytes.length).raw(bytes);
  return block(little, 6, body.array);
}

const join = (...parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(parts));

const plain = ({ seconds, nanoseconds, bytes }: CapturedFrame): PlainFrame => ({
  seconds,
  nanoseconds,
  bytes: Uint8Array.from(bytes),
});

const frame = (micros: boolean): fc.Arbitrary<PlainFrame> =>
  fc.record({
    seconds: fc.integer({ min: 0, max: 0xffffffff }),
    nanoseconds: fc.integer({ min: 0, max: 999_999 }).map((n) => (micros ? n * 1000 : n * 999)),
    bytes: fc.uint8Array({ maxLength: 100 }),
  });

describe('pcap', () => {
  it.each([
    ['little-endian, microseconds', true, MICRO],
    ['big-endian, microseconds', false, MICRO],
    ['little-endian, nanoseconds', true, NANO],
    ['big-endian, nanoseconds', false, NANO],
  ])('%s', (_, little, magic) => {
    fc.assert(
      fc.property(fc.array(frame(magic === MICRO), { maxLength: 5 }), (frames) => {
        const read = [...readCapture(pcap(little, magic, frames), 'x')];
        expect(read.map(plain)).toEqual(frames);
        expect(read.map(({ number }) => number)).toEqual(frames.map((_, i) => i + 1));
        for (const { originalBytes, bytes, linkType } of read) {
          expect([originalBytes - bytes.length, linkType]).toEqual([7, LINK_ETHERNET]);
        }
      }),
      { numRuns: 50, seed: 1 },
    );
  });
});

describe('pcapng', () => {
  const data = Uint8Array.of(1, 2, 3, 4, 5);

  it.each([true, false])('little-endian %s: time stamps of every resolution', (little) => {
    const file = join(
      section(little),
      description(little, LINK_ETHERNET),
      description(little, 101, [2, [97, 98, 99, 0]], [9, [9]]),
      description(
        little,
        101,
        [9, [0x80 | 30]],
        [
          14,
          new Builder(little).u32(...(little ? [5, 0] : [0, 5])).raw([])
            .array as unknown as number[],
        ],
      ),
      block(little, 5, new Uint8Array(12)), // interface statistics: no packet
      enhanced(little, 0, 1_700_000_000_123_456n, data),
      enhanced(little, 1, 1_700_000_000_123_456_789n, data),
      enhanced(little, 2, (7n << 30n) | (1n << 29n), data),
      block(little, 2, new Builder(little).u16(1, 0).u32(0, 99, 5, 5).raw(data).array),
      block(little, 3, new Builder(little).u32(5).raw(data).array),
    );
    const read = [...readCapture(file, 'x')];
    expect(
      read.map((f) => [f.number, f.seconds, f.nanoseconds, f.linkType, f.interfaceName]),
    ).toEqual([
      [1, 1_700_000_000, 123_456_000, LINK_ETHERNET, ''],
      [2, 1_700_000_000, 123_456_789, 101, 'abc'],
      [3, 12, 500_000_000, 101, ''],
      [4, 0, 99, 101, 'abc'],
      [5, -1, 0, LINK_ETHERNET, ''],
    ]);
    for (const { bytes } of read) expect(Uint8Array.from(bytes)).toEqual(data);
  });

  it('sections of both byte orders follow each other, each with interfaces of its own', () => {
    const parts = [true, false].flatMap((little) => [
      section(little),
      description(little, little ? 1 : 101),
      enhanced(little, 0, 1n, data),
    ]);
    const read = [...readCapture(join(...parts), 'x')];
    expect(read.map(({ number, linkType }) => [number, linkType])).toEqual([
      [1, 1],
      [2, 101],
    ]);
  });

  it('what the writer writes comes back', () => {
    const packet = fc.record({
      port: fc.integer({ min: 0, max: 1 }),
      timeNs: fc.integer({ min: 0, max: 2 ** 53 - 1 }),
      bytes: fc.uint8Array({ maxLength: 60 }),
    });
    fc.assert(
      fc.property(fc.array(packet, { maxLength: 5 }), (packets) => {
        const interfaces = ['a.hca', 'b.hca'].map((name) => ({ name, linkType: 197 }));
        const parts = [pcapngHead('test', interfaces)];
        for (const { port, timeNs, bytes } of packets) {
          const out = new Uint8Array(enhancedPacketBytes(bytes.length) + 3).fill(0xa5);
          const end = writeEnhancedPacket(port, timeNs, bytes, out, 2);
          expect(end - 2).toBe(enhancedPacketBytes(bytes.length));
          parts.push(out.slice(2, end));
        }
        const read = [...readCapture(join(...parts), 'x')].map((f) => ({
          port: f.interfaceName === 'a.hca' ? 0 : 1,
          timeNs: f.seconds * 1e9 + f.nanoseconds,
          bytes: Uint8Array.from(f.bytes),
        }));
        expect(read).toEqual(packets);
      }),
      { numRuns: 100, seed: 2 },
    );
  });
});

describe('ERF records', () => {
  it('hold an InfiniBand packet', () => {
    const bytes = new Uint8Array(ERF_BYTES + 24);
    expect(writeErf(1_500_000_000, 24, new DataView(bytes.buffer), 0)).toBe(ERF_BYTES);
    expect(readErf(bytes)).toEqual({ type: ERF_INFINIBAND, start: ERF_BYTES, end: ERF_BYTES + 24 });
    expect(new DataView(bytes.buffer).getBigUint64(0, true)).toBe((1n << 32n) | (1n << 31n));
  });

  it('may have more headers, and may be cut off', () => {
    const bytes = new Uint8Array(ERF_BYTES + 16 + 4);
    bytes.set([0x80 | ERF_INFINIBAND], 8);
    bytes.set([4], 15);
    bytes.set([0x81], 16);
    expect(readErf(bytes)).toEqual({ type: ERF_INFINIBAND, start: 32, end: 36 });
    for (let cut = 0; cut < 32; cut++) expect(readErf(bytes.subarray(0, cut))).toBeUndefined();
  });
});

describe('what is wrong with a capture', () => {
  const good = captureBytes('rc_send');
  const ng = join(section(true), description(true, 1), enhanced(true, 0, 1n, Uint8Array.of(1)));
  const changed = (bytes: Uint8Array, at: number, ...values: readonly number[]): Uint8Array => {
    const copy = Uint8Array.from(bytes);
    copy.set(values, at);
    return copy;
  };

  it.each([
    ['an empty file', new Uint8Array(0), 0, 'the file is empty', 0],
    ['a text', new TextEncoder().encode('hello'), 0, 'it starts with 68 65 6c 6c', 0],
    ['a gzip', Uint8Array.of(0x1f, 0x8b, 8, 0), 0, 'it starts with 1f 8b 08 00', 0],
    ['half a pcap header', good.slice(0, 20), 20, 'ends inside its header', 0],
    ['a pcap of another version', changed(good, 4, 3, 0), 4, 'version 3 of pcap', 0],
    ['half a record header', good.slice(0, 30), 24, 'the header of frame 1 is cut off', 0],
    ['half a frame', good.slice(0, 24 + 16 + 121), 24, 'frame 1 is cut off', 0],
    [
      'half a later frame',
      good.slice(0, good.length - 1),
      good.length - 78,
      'frame 27 is cut off',
      26,
    ],
    [
      'an enormous frame',
      changed(good, 32, 0xff, 0xff, 0xff, 0xff),
      24,
      'claims 4294967295 bytes',
      0,
    ],
    ['microseconds beyond a second', changed(good, 28, 0, 0, 0x10, 0), 28, 'more than a second', 0],
    ['half a section header', ng.slice(0, 20), 0, 'the section header is cut off', 0],
    ['a wrong byte-order magic', changed(ng, 8, 1), 8, 'byte-order magic', 0],
    ['a pcapng of another version', changed(ng, 12, 2), 12, 'version 2 of pcapng', 0],
    ['a block that is cut off', ng.slice(0, ng.length - 4), 48, 'a block is cut off', 0],
    ['a few bytes more', join(ng, Uint8Array.of(1, 2, 3)), ng.length, 'a block is cut off', 1],
    ['a block of 11 bytes', changed(ng, 52, 11), 52, 'a block of 11 bytes', 0],
    ['two lengths', changed(ng, 44, 24), 44, 'the two lengths of a block differ', 0],
    ['an unknown interface', changed(ng, 56, 1), 56, 'frame 1 came from interface 1', 0],
    ['a packet longer than its block', changed(ng, 68, 99), 48, 'frame 1 is cut off', 0],
    [
      'no interface at all',
      join(section(true), block(true, 3, new Builder(true).u32(1, 0).array)),
      28,
      'frame 1 came from interface 0',
      0,
    ],
    [
      'an option that is cut off',
      join(section(true), block(true, 1, new Builder(true).u16(1, 0).u32(0).u16(2, 40).array)),
      44,
      'an option is cut off',
      0,
    ],
  ])('%s', (_, bytes, offset, what, framesBefore) => {
    let frames = 0;
    let failure: unknown;
    try {
      for (const _frame of readCapture(bytes, 'file.pcap')) frames++;
    } catch (error) {
      failure = error;
    }
    expect(failure).toBeInstanceOf(Failure);
    const { code, place, message } = failure as Failure;
    expect([code, place]).toEqual(['E_CAPTURE_INVALID', `file.pcap: byte ${offset}`]);
    expect(message).toContain(what);
    expect(frames).toBe(framesBefore);
  });

  it('random changes of a capture end in frames or in a Failure, never in anything else', () => {
    const change = fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 }));
    fc.assert(
      fc.property(
        fc.constantFrom(Uint8Array.from(good), ng),
        fc.array(change, { maxLength: 8 }),
        fc.nat(),
        (bytes, changes, cut) => {
          const copy = bytes.slice(0, cut % 3 === 0 ? cut % bytes.length : bytes.length);
          for (const [at, value] of changes) if (copy.length > 0) copy[at % copy.length] = value;
          try {
            for (const { bytes: data } of readCapture(copy, 'x')) expect(data.length).toBeDefined();
          } catch (error) {
            expect(error).toBeInstanceOf(Failure);
          }
        },
      ),
      { numRuns: 1000, seed: 3 },
    );
  });
});
