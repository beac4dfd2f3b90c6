/** The ICRC: published packets, a slow computation bit by bit, and the rules of peers. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decodePacket,
  decodeRoce,
  encodeRoce,
  FRAME_WORDS,
  FramePool,
  icrcOfLocalPacket,
  icrcOfRoce,
  icrcRuleOf,
  opName,
  PAYLOAD_BYTES,
  RC_FLUSH,
  RC_SEND_ONLY,
  ROCE_MAX_BYTES,
  RoceHeader,
  rxeIcrcRules,
  W_OPCODE,
} from '../../transport/index.ts';
import { icrcOfGlobalPacket, vcrc } from '../../transport/wire/icrc.ts';
import { frameOf, hex } from './wire-frames.ts';

/** CRC-32 of the specification, bit by bit. */
function slowCrc(bytes: Iterable<number>, before = 0): number {
  let crc = ~before;
  for (const byte of bytes) {
    crc ^= byte;
    for (let k = 0; k < 8; k++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

const ones = (bytes: Uint8Array, ...masks: readonly (readonly [at: number, mask: number])[]) => {
  const copy = bytes.slice();
  for (const [at, mask] of masks) copy[at] |= mask;
  return copy;
};

describe('ICRC of published packets', () => {
  // The first and second: scapy, test/contrib/roce.uts. The third: computed by hand.
  it.each([
    {
      name: 'an UC SEND ONLY',
      frame: `248a07a8fa22 248a07a8fa22 0800 45010040 04784000 4011b4d5 c0a80007 c0a80007
              c00012b7 002c0000 2460ffff 000000d3 00cf1710
              4630818be28935d90e9a95505401be885e500000 78f353f3`,
    },
    {
      name: 'a CNP of a ConnectX-4 Lx',
      frame: `e41d2dab2bc2 7cfe90643b32 0800 45c2003c 718c4000 40119161 0a001101 0a001201
              000012b7 00280000 8100ffff 40000118 00000000
              00000000000000000000000000000000 82fd002a`,
    },
    {
      name: 'a RC SEND ONLY',
      frame: `020000000002 020000000001 0800 45020034 00004000 401126b5 0a000001 0a000002
              c00012b7 00200000 0400ffff 00000011 80000001 0001020304050607 d9c11223`,
    },
  ])('$name', ({ frame }) => {
    const bytes = hex(frame);
    const pool = new FramePool(undefined, 8, 8);
    const header = new RoceHeader();
    const packet = decodeRoce(pool, bytes, 0, bytes.length, header);
    expect(packet).toBeGreaterThanOrEqual(0);
    expect(header.icrcError).toBe(0);
    const out = new Uint8Array(ROCE_MAX_BYTES).fill(0xa5);
    const end = encodeRoce(pool, packet, 0, header, out, 0);
    expect(out.subarray(0, end)).toEqual(bytes);
  });
});

describe('ICRC', () => {
  it('of the sample packet of the specification (volume 1, 7.8.1) is 96 25 b7 5a', () => {
    const bytes = hex(`7012375c000e17d2 0a2024870087b1b3000dec2a 01710a1c015d400238f27a050000000e
                       bb884d85fd5cfba4728bc0690ed40000 9625b75a`);
    const pool = new FramePool(undefined, 8, 8);
    const frame = decodePacket(pool, bytes, 0, bytes.length);
    expect(frame).toBeGreaterThanOrEqual(0);
    expect(opName[pool.words[frame * FRAME_WORDS + W_OPCODE]]).toBe('RC_RDMA_WRITE_ONLY');
    expect(pool.words[frame * FRAME_WORDS + PAYLOAD_BYTES]).toBe(14);
  });

  const packet = fc.uint8Array({ minLength: 88, maxLength: 300 });

  it('of a local packet leaves out the virtual lane and a byte of the BTH', () => {
    fc.assert(
      fc.property(packet, (bytes) => {
        const covered = ones(bytes, [0, 0xf0], [12, 0xff]);
        expect(icrcOfLocalPacket(bytes, 0, bytes.length)).toBe(slowCrc(covered));
      }),
      { numRuns: 50, seed: 2 },
    );
  });

  it('of a global packet also the traffic class, flow label and hop limit', () => {
    fc.assert(
      fc.property(packet, (bytes) => {
        const grh = [8, 9, 10, 11, 15].map((at) => [at, at === 8 ? 0x0f : 0xff] as const);
        const covered = ones(bytes, [0, 0xf0], ...grh, [52, 0xff]);
        expect(icrcOfGlobalPacket(bytes, 0, bytes.length)).toBe(slowCrc(covered));
      }),
      { numRuns: 50, seed: 3 },
    );
  });

  it('of RoCEv2 starts with eight bytes of ones, and leaves out what routers change', () => {
    const ipv4 = [1, 8, 10, 11].map((at) => [at, 0xff] as const);
    const ipv6 = [0, 1, 2, 3, 7].map((at) => [at, at === 0 ? 0x0f : 0xff] as const);
    fc.assert(
      fc.property(packet, fc.constantFrom(4, 6), fc.integer({ min: 0, max: 40 }), (bytes, v, n) => {
        const ipBytes = v === 4 ? 20 + (n & ~3) : 40;
        bytes[0] = (v << 4) | (bytes[0] & 0xf);
        const rest = [ipBytes + 6, ipBytes + 7, ipBytes + 12].map((at) => [at, 0xff] as const);
        const covered = ones(bytes, ...(v === 4 ? ipv4 : ipv6), ...rest);
        const crc = slowCrc(covered, slowCrc(new Uint8Array(8).fill(0xff)));
        expect(icrcOfRoce(bytes, 0, ipBytes + 8, bytes.length)).toBe(crc);
      }),
      { numRuns: 100, seed: 4 },
    );
  });

  it('starts from state 0xdebb20e3 for RoCEv2', () => {
    expect(~slowCrc(new Uint8Array(8).fill(0xff)) >>> 0).toBe(0xdebb20e3);
  });
});

it('the VCRC is the CRC-16 of the specification', () => {
  const slow = (bytes: Uint8Array): number => {
    let crc = 0xffff;
    for (const byte of bytes) {
      for (let k = 0; k < 8; k++) {
        const bit = (crc ^ (byte >>> k)) & 1;
        // 0x100b with its bits the other way round.
        crc = (crc >>> 1) ^ (bit ? 0xd008 : 0);
      }
    }
    return ~crc & 0xffff;
  };
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      expect(vcrc(bytes, 0, bytes.length)).toBe(slow(bytes));
    }),
  );
});

describe('rule rxe-flush-icrc', () => {
  const rule = icrcRuleOf(rxeIcrcRules, RC_FLUSH);
  const pool = new FramePool(undefined, 8, 8);
  const words = [1, 2, 3, 0x11, 5, 6, 7, 8];
  const common = { flags: 0, qpn: 7, psn: 9, lids: 0, pkey: 0xffff, addressHigh: 0, words };
  const flush = { ...common, opcode: RC_FLUSH, addressLow: 64, payload: new Uint8Array(0) };
  const bytes = new Uint8Array(ROCE_MAX_BYTES);
  const fromRxe = new RoceHeader();
  fromRxe.icrcRule = rule;
  const end = encodeRoce(pool, frameOf(pool, flush), 0, fromRxe, bytes, 0);

  it('covers the headers of a FLUSH twice', () => {
    const bth = end - 4 - 32;
    const once = icrcOfRoce(bytes, 14, bth, end - 4);
    const twice = slowCrc(bytes.subarray(bth, end - 4), once);
    expect(bytes.subarray(end - 4, end)).toEqual(new Uint8Array(Uint32Array.of(twice).buffer));
  });

  it('is told by decode, and makes a wrong ICRC of it where nobody asks for it', () => {
    const header = new RoceHeader();
    decodeRoce(pool, bytes, 0, end, header, { icrcRules: rxeIcrcRules });
    expect([header.icrcRule?.name, header.icrcError]).toEqual(['rxe-flush-icrc', 0]);
    decodeRoce(pool, bytes, 0, end, header);
    expect(header.icrcRule).toBeUndefined();
    expect(header.icrcError).not.toBe(0);
  });

  it('touches no other packet', () => {
    const header = new RoceHeader();
    header.icrcRule = rule;
    const send = frameOf(pool, { ...flush, opcode: RC_SEND_ONLY });
    const length = encodeRoce(pool, send, 0, header, bytes, 0);
    decodeRoce(pool, bytes, 0, length, header, { icrcRules: rxeIcrcRules });
    expect([header.icrcRule, header.icrcError]).toEqual([undefined, 0]);
  });
});
