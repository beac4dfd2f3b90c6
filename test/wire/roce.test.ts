/** RoCEv2 frames, and native packets of captures: every bit comes back, and what is refused. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  BTH_DAMAGED,
  BTH_WITH_GRH,
  decodeNative,
  decodeRoce,
  encodeNative,
  encodeRoce,
  FRAME_WORDS,
  FramePool,
  IpFrame,
  LNH_GLOBAL,
  LNH_LOCAL,
  NativeHeader,
  PACKET_BAD_LENGTH,
  PACKET_FOREIGN,
  PACKET_FRAGMENT,
  PACKET_MAX_BYTES,
  PACKET_TRUNCATED,
  RC_SEND_ONLY,
  ROCE_MAX_BYTES,
  RoceHeader,
  UD_SEND_ONLY,
  udpSourcePort,
  W_BTH_FLAGS,
} from '../../transport/index.ts';
import {
  allOpcodes,
  anyPacket,
  contentOf,
  frameOf,
  inUse,
  type PlainPacket,
  payloadOf,
} from './wire-frames.ts';

const u8 = fc.integer({ min: 0, max: 0xff });
const u16 = fc.integer({ min: 0, max: 0xffff });
const bytesOf = (length: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: length, maxLength: length });

const anyHeader = fc.record({
  hasEthernet: fc.boolean(),
  destMac: bytesOf(6),
  sourceMac: bytesOf(6),
  tags: fc.constantFrom([], [0x81, 0, 0x20, 5], [0x88, 0xa8, 0, 7, 0x81, 0, 0xff, 0xff]),
  version: fc.constantFrom(4, 6),
  source: bytesOf(16),
  dest: bytesOf(16),
  trafficClass: u8,
  flowLabel: fc.integer({ min: 0, max: 0xfffff }),
  hopLimit: u8,
  identification: u16,
  fragment: fc.constantFrom(0, 0x4000, 0x8000, 0xc000),
  options: fc.integer({ min: 0, max: 10 }).chain((n) => bytesOf(4 * n)),
  checksumError: fc.constantFrom(0, 0, 0x1234),
  sourcePort: u16,
  hasUdpChecksum: fc.boolean(),
  udpChecksumError: fc.constantFrom(0, 0, 0x0101),
  padBytes: fc.constantFrom(0, 0, 0xff),
  icrcError: fc.constantFrom(0, 0, 1, 0x7fffffff),
  trailer: fc.integer({ min: 0, max: 64 }).chain((n) => bytesOf(n)),
});

type PlainHeader = typeof anyHeader extends fc.Arbitrary<infer T> ? T : never;

function headerOf(plain: PlainHeader, pad: number): RoceHeader {
  const header = new RoceHeader();
  const { tags, options, trailer, destMac, sourceMac, source, dest, ...scalars } = plain;
  Object.assign(header, scalars, { padBytes: pad > 0 ? plain.padBytes : 0 });
  if (!plain.hasUdpChecksum) header.udpChecksumError = 0;
  const arrays = { tags, options, trailer, destMac, sourceMac, source, dest };
  for (const [name, bytes] of Object.entries(arrays))
    header[name as keyof typeof arrays].set(bytes);
  header.tagBytes = plain.hasEthernet ? tags.length : 0;
  header.optionBytes = options.length;
  header.trailerBytes = trailer.length;
  return header;
}

describe('RoCEv2 frames', () => {
  it('come back bit by bit: any opcode, any header, in a dirty buffer, and leak nothing', () => {
    fc.assert(
      fc.property(anyPacket(allOpcodes), anyHeader, fc.integer({ min: 0, max: 9 }), (p, h, at) => {
        const pool = new FramePool(undefined, 8, 8);
        const header = headerOf(h, -p.payload.length & 3);
        if (header.icrcError !== 0) {
          Object.assign(p, { flags: p.flags | BTH_DAMAGED });
        }
        const frame = frameOf(pool, { ...p, lids: 0 });
        const out = new Uint8Array(ROCE_MAX_BYTES + 16).fill(0xa5);
        const end = encodeRoce(pool, frame, 0, header, out, at);
        expect(out[end]).toBe(0xa5);
        const read = new RoceHeader();
        read.hasEthernet = h.hasEthernet;
        const back = decodeRoce(pool, out, at, end, read);
        expect(contentOf(pool, back)).toEqual(contentOf(pool, frame));
        const again = new Uint8Array(ROCE_MAX_BYTES + 16).fill(0x5a);
        expect(encodeRoce(pool, back, 0, read, again, at)).toBe(end);
        expect(Buffer.compare(out.subarray(at, end), again.subarray(at, end))).toBe(0);
        expect(read.headBytes).toBe(read.payloadAt - at);
        pool.release(back);
        pool.release(frame);
        expect(inUse(pool)).toEqual([0, 0, 0]);
      }),
      { numRuns: 1000, seed: 1 },
    );
  });

  const plain: PlainPacket = {
    opcode: RC_SEND_ONLY,
    flags: 0,
    qpn: 3,
    psn: 4,
    lids: 0,
    pkey: 0xffff,
    addressHigh: 0,
    addressLow: 0,
    words: [1, 2, 3, 4, 5, 6, 7, 8],
    payload: Uint8Array.of(1, 2, 3, 4, 5),
  };
  const pool = new FramePool(undefined, 64, 64);
  const bytes = new Uint8Array(ROCE_MAX_BYTES);
  const end = encodeRoce(pool, frameOf(pool, plain), 0, new RoceHeader(), bytes, 0);
  const altered = (...changes: readonly (readonly [at: number, value: number])[]): Uint8Array => {
    const copy = bytes.slice(0, end);
    for (const [at, value] of changes) copy[at] = value;
    return copy;
  };

  it.each([
    ['an Ethernet header cut off', bytes.slice(0, 13), PACKET_TRUNCATED],
    ['a VLAN tag cut off', altered([12, 0x81], [13, 0]).slice(0, 17), PACKET_TRUNCATED],
    ['an IP packet cut off', bytes.slice(0, end - 1), PACKET_TRUNCATED],
    ['ARP', altered([12, 8], [13, 6]), PACKET_FOREIGN],
    ['TCP', altered([23, 6]), PACKET_FOREIGN],
    ['another UDP port', altered([37, 0xb8]), PACKET_FOREIGN],
    ['a fragment', altered([20, 0x20]), PACKET_FRAGMENT],
    ['a later fragment', altered([21, 1]), PACKET_FRAGMENT],
    ['IPv4 with the version of IPv6', altered([14, 0x65]), PACKET_BAD_LENGTH],
    ['an IPv4 header of 16 bytes', altered([14, 0x44]), PACKET_BAD_LENGTH],
    ['a UDP length that is not the IP one', altered([39, 9]), PACKET_BAD_LENGTH],
    ['no room for a BTH', altered([17, 43], [39, 23]), PACKET_TRUNCATED],
    ['headers longer than the packet', altered([42, 0x13]), PACKET_TRUNCATED],
    [
      'a length that is no multiple of 4',
      altered([17, end - 15], [39, end - 35]),
      PACKET_BAD_LENGTH,
    ],
    [
      'more behind the packet than padding',
      Uint8Array.of(...bytes.slice(0, end), ...new Uint8Array(65)),
      PACKET_BAD_LENGTH,
    ],
  ])('%s is refused', (_, frame, problem) => {
    const before = inUse(pool);
    expect(decodeRoce(pool, frame, 0, frame.length, new RoceHeader())).toBe(problem);
    expect(inUse(pool)).toEqual(before);
  });

  it('a wrong ICRC, IP checksum, UDP checksum and pad are told', () => {
    const header = new RoceHeader();
    const wrong = altered([end - 1, bytes[end - 1] ^ 0x80], [24, 1], [40, 7], [end - 5, 9]);
    const frame = decodeRoce(pool, wrong, 0, end, header);
    expect(pool.words[frame * FRAME_WORDS + W_BTH_FLAGS]).toBe(BTH_DAMAGED);
    expect(header.icrcError).not.toBe(0);
    expect(header.checksumError).not.toBe(0);
    expect(header.udpChecksumError).not.toBe(0);
    expect(header.padBytes).toBe(9);
  });

  it('a datagram starts with its IP header where the receiver wants it', () => {
    const header = new RoceHeader();
    for (const version of [4, 6]) {
      header.version = version;
      header.source.fill(1);
      header.dest.fill(2);
      const out = new Uint8Array(ROCE_MAX_BYTES);
      const datagram = frameOf(pool, { ...plain, opcode: UD_SEND_ONLY });
      const length = encodeRoce(pool, datagram, 0, header, out, 0);
      const frame = decodeRoce(pool, out, 0, length, new RoceHeader(), { withGrh: true });
      const payload = payloadOf(pool, frame);
      const ip = version === 6 ? out.slice(14, 54) : [...new Uint8Array(20), ...out.slice(14, 34)];
      expect([...payload]).toEqual([...ip, ...plain.payload]);
      expect(pool.words[frame * FRAME_WORDS + W_BTH_FLAGS]).toBe(BTH_WITH_GRH);
      const again = new Uint8Array(ROCE_MAX_BYTES);
      expect(encodeRoce(pool, frame, 0, header, again, 0)).toBe(length);
      expect(again).toEqual(out);
    }
  });

  it('random bytes never throw, whatever is right about them', () => {
    const before = inUse(pool);
    const header = new RoceHeader();
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 400 }),
        fc.array(fc.tuple(fc.integer({ min: 0, max: end - 1 }), u8), { maxLength: 6 }),
        fc.boolean(),
        (noise, changes, isMutation) => {
          const frame = isMutation ? altered(...changes) : noise;
          const packet = decodeRoce(pool, frame, 0, frame.length, header, { withGrh: true });
          if (packet >= 0) pool.release(packet);
        },
      ),
      { numRuns: 5000, seed: 5 },
    );
    expect(inUse(pool)).toEqual(before);
  });
});

describe('native packets of a capture', () => {
  it('come back bit by bit, with GRH and without, with VCRC and without', () => {
    const shape = fc.record({
      packet: anyPacket(allOpcodes),
      lrh: bytesOf(8),
      grh: bytesOf(40),
      isGlobal: fc.boolean(),
      hasVcrc: fc.boolean(),
      icrcError: fc.constantFrom(0, 0, 77),
      vcrcError: fc.constantFrom(0, 0, 77),
    });
    fc.assert(
      fc.property(shape, ({ packet, lrh, grh, isGlobal, ...scalars }) => {
        const pool = new FramePool(undefined, 8, 8);
        const header = new NativeHeader();
        header.lrh.set(lrh);
        header.lrh[1] = (lrh[1] & 0xfc) | (isGlobal ? LNH_GLOBAL : LNH_LOCAL);
        if (isGlobal) header.grh.set(grh);
        Object.assign(header, scalars);
        if (!header.hasVcrc) header.vcrcError = 0;
        const flags = packet.flags | (header.icrcError !== 0 ? BTH_DAMAGED : 0);
        const lids = (header.sourceLid << 16) | header.destLid;
        const frame = frameOf(pool, { ...packet, flags, lids });
        const out = new Uint8Array(PACKET_MAX_BYTES + 8).fill(0xa5);
        const end = encodeNative(pool, frame, 0, header, out, 1);
        const read = new NativeHeader();
        const back = decodeNative(pool, out, 1, end, read);
        expect(contentOf(pool, back)).toEqual(contentOf(pool, frame));
        const again = new Uint8Array(PACKET_MAX_BYTES + 8).fill(0xa5);
        expect(encodeNative(pool, back, 0, read, again, 1)).toBe(end);
        expect(again).toEqual(out);
        expect([read.icrcError, read.vcrcError]).toEqual([header.icrcError, header.vcrcError]);
      }),
      { numRuns: 500, seed: 6 },
    );
  });
});

describe('addresses', () => {
  it.each([
    ['fe80::5054:ff:fe00:1', [0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe00, 1]],
    ['::', [0, 0, 0, 0, 0, 0, 0, 0]],
    ['::1', [0, 0, 0, 0, 0, 0, 0, 1]],
    ['1::', [1, 0, 0, 0, 0, 0, 0, 0]],
    ['1:0:2::3', [1, 0, 2, 0, 0, 0, 0, 3]],
    ['1:2:3:4:5:6:0:8', [1, 2, 3, 4, 5, 6, 0, 8]],
  ])('IPv6 is written as %s', (text, groups) => {
    const frame = new IpFrame();
    frame.version = 6;
    groups.forEach((group, i) => {
      frame.source.set([group >> 8, group], 2 * i);
    });
    expect(frame.sourceText).toBe(text);
  });

  // From captured packets of Linux: rc_tclass (a flow label), rc_send and rc_dup.
  it.each([
    [0x12345, 0x35, 0x35, 0xe341],
    [0, 0x11, 0x11, 0xc121],
    [0, 0x21, 0x21, 50241],
  ])('flow label %i of QPs %i and %i leaves from UDP port %i', (label, local, remote, port) => {
    expect(udpSourcePort(label, local, remote)).toBe(port);
  });

  it('the UDP source port is that of Linux for any QPs', () => {
    const qpn = fc.integer({ min: 0, max: 0xffffff });
    fc.assert(
      fc.property(qpn, qpn, (a, b) => {
        let v = BigInt(a) * BigInt(b);
        v ^= v >> 20n;
        v ^= v >> 40n;
        const label = Number(v & 0xfffffn);
        expect(udpSourcePort(0, a, b)).toBe(0xc000 | ((label & 0x3fff) ^ (label >> 14)));
      }),
    );
  });
});
