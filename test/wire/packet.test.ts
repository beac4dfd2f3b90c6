/** Packets between our processes: the opcode table, headers, and what is refused. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  BTH_DAMAGED,
  BTH_WITH_GRH,
  BURST_OFFSET,
  decodePacket,
  encodePacket,
  FRAME_WORDS,
  FramePool,
  icrcOfLocalPacket,
  linkOverheadBytes,
  opFlags,
  opHeaderBytes,
  opName,
  PACKET_BAD_ICRC,
  PACKET_BAD_LENGTH,
  PACKET_BAD_PAD,
  PACKET_FOREIGN,
  PACKET_MAX_BYTES,
  PACKET_TRUNCATED,
  PAYLOAD_BYTES,
  packetDataWords,
  packetWireBytes,
  putIcrc,
  RC_ACKNOWLEDGE,
  RC_COMPARE_SWAP,
  RC_READ_REQUEST,
  RC_SEND_ONLY,
  RC_WRITE_MIDDLE,
  RC_WRITE_ONLY_IMM,
  UD_SEND_ONLY,
  W_BTH_FLAGS,
  W_PSN,
} from '../../transport/index.ts';
import {
  allOpcodes,
  anyPacket,
  contentOf,
  frameOf,
  inUse,
  knownOpcodes,
  type PlainPacket,
  payloadOf,
} from './wire-frames.ts';

const plain: PlainPacket = {
  opcode: RC_WRITE_ONLY_IMM,
  flags: 0,
  qpn: 0x010203,
  psn: 0x070e15,
  lids: (2 << 16) | 1,
  pkey: 0xffff,
  addressHigh: 0xf,
  addressLow: 0x60f54cc9,
  words: [0x010203, 0x030609, 0, 0x010203, 1, 2, 3, 4],
  payload: Uint8Array.of(1, 2, 3, 4, 5),
};

describe('opcode table', () => {
  it('has every opcode with lengths that add up', () => {
    const list = knownOpcodes.map((op) => `${op.toString(16)} ${opName[op]} ${opHeaderBytes[op]}`);
    expect(list).toMatchInlineSnapshot(`
      [
        "0 RC_SEND_FIRST 12",
        "1 RC_SEND_MIDDLE 12",
        "2 RC_SEND_LAST 12",
        "3 RC_SEND_LAST_IMM 16",
        "4 RC_SEND_ONLY 12",
        "5 RC_SEND_ONLY_IMM 16",
        "6 RC_RDMA_WRITE_FIRST 28",
        "7 RC_RDMA_WRITE_MIDDLE 12",
        "8 RC_RDMA_WRITE_LAST 12",
        "9 RC_RDMA_WRITE_LAST_IMM 16",
        "a RC_RDMA_WRITE_ONLY 28",
        "b RC_RDMA_WRITE_ONLY_IMM 32",
        "c RC_RDMA_READ_REQUEST 28",
        "d RC_RDMA_READ_RESPONSE_FIRST 16",
        "e RC_RDMA_READ_RESPONSE_MIDDLE 12",
        "f RC_RDMA_READ_RESPONSE_LAST 16",
        "10 RC_RDMA_READ_RESPONSE_ONLY 16",
        "11 RC_ACKNOWLEDGE 16",
        "12 RC_ATOMIC_ACKNOWLEDGE 24",
        "13 RC_COMPARE_SWAP 40",
        "14 RC_FETCH_ADD 40",
        "16 RC_SEND_LAST_INV 16",
        "17 RC_SEND_ONLY_INV 16",
        "1c RC_FLUSH 32",
        "1d RC_ATOMIC_WRITE 28",
        "20 UC_SEND_FIRST 12",
        "21 UC_SEND_MIDDLE 12",
        "22 UC_SEND_LAST 12",
        "23 UC_SEND_LAST_IMM 16",
        "24 UC_SEND_ONLY 12",
        "25 UC_SEND_ONLY_IMM 16",
        "26 UC_RDMA_WRITE_FIRST 28",
        "27 UC_RDMA_WRITE_MIDDLE 12",
        "28 UC_RDMA_WRITE_LAST 12",
        "29 UC_RDMA_WRITE_LAST_IMM 16",
        "2a UC_RDMA_WRITE_ONLY 28",
        "2b UC_RDMA_WRITE_ONLY_IMM 32",
        "64 UD_SEND_ONLY 20",
        "65 UD_SEND_ONLY_IMM 24",
        "80 CNP_INFINIBAND 28",
        "81 CNP 28",
        "e0 ANNOUNCE_PD_SUSPEND 12",
        "e1 ANNOUNCE_PD_RESUME 12",
      ]
    `);
  });

  it('gives an opcode that is not in it a BTH and no flags', () => {
    for (const op of allOpcodes.filter((op) => !knownOpcodes.includes(op))) {
      expect([opFlags[op], opHeaderBytes[op]]).toEqual([0, 12]);
    }
  });

  it('a packet takes its headers, padded payload, ICRC and what the link adds', () => {
    expect(packetWireBytes(RC_SEND_ONLY, 5)).toBe(8 + 12 + 8 + 4 + 2);
    expect(packetWireBytes(RC_ACKNOWLEDGE, 0)).toBe(8 + 16 + 4 + 2);
    const ethernet = linkOverheadBytes.Ethernet;
    expect(packetWireBytes(RC_ACKNOWLEDGE, 0, ethernet)).toBe(14 + 20 + 8 + 16 + 4 + 4 + 20);
    expect(packetDataWords(RC_ACKNOWLEDGE, 0)).toBe((8 + 16 + 4) / 4);
  });
});

describe('encode and decode', () => {
  it('agree for every opcode, known or not, in a dirty buffer, and leak nothing', () => {
    fc.assert(
      fc.property(anyPacket(allOpcodes), fc.integer({ min: 0, max: 9 }), (packet, at) => {
        const pool = new FramePool(undefined, 8, 8);
        const frame = frameOf(pool, packet);
        const out = new Uint8Array(PACKET_MAX_BYTES + 16).fill(0xa5);
        const end = encodePacket(pool, frame, 0, out, at);
        expect(out[end]).toBe(0xa5);
        const back = decodePacket(pool, out, at, end);
        expect(contentOf(pool, back)).toEqual(contentOf(pool, frame));
        const again = new Uint8Array(PACKET_MAX_BYTES + 16);
        expect(encodePacket(pool, back, 0, again, at)).toBe(end);
        expect(Buffer.compare(out.subarray(at, end), again.subarray(at, end))).toBe(0);
        pool.release(back);
        pool.release(frame);
        expect(inUse(pool)).toEqual([0, 0, 0]);
      }),
      { numRuns: 1000, seed: 1 },
    );
  });

  it('a train of packets is the packets that would have been sent alone', () => {
    const pool = new FramePool(undefined, 8, 8);
    const payload = Uint8Array.from({ length: 4096 }, (_, i) => i * 31);
    const packet = { ...plain, opcode: RC_WRITE_MIDDLE, psn: 0xfffffe };
    const train = frameOf(pool, { ...packet, payload });
    pool.words[train * FRAME_WORDS + PAYLOAD_BYTES] = 1024;
    const single = frameOf(pool, { ...packet, payload: payload.subarray(2048, 3072), psn: 0 });
    const a = new Uint8Array(PACKET_MAX_BYTES);
    const b = new Uint8Array(PACKET_MAX_BYTES);
    encodePacket(pool, train, 2, a, 0);
    encodePacket(pool, single, 0, b, 0);
    expect(a).toEqual(b);
  });

  it.each([
    {
      name: 'RDMA WRITE ONLY with immediate',
      packet: plain,
      bytes:
        '00020001 000d0002 0b70ffff 00010203 00070e15 0000000f 60f54cc9 00010203 00030609 00010203 01020304 05000000',
    },
    {
      name: 'COMPARE SWAP with an address above 2^53 and every BTH bit',
      packet: {
        ...plain,
        opcode: RC_COMPARE_SWAP,
        flags: 0b1_1011 | (0xf << 8) | (0x3f << 12) | (0x7f << 18),
        addressHigh: 0xffffffff,
        addressLow: 0xfffffffd,
        payload: new Uint8Array(0),
      },
      bytes:
        '00020001 000d0002 13cfffff ff010203 ff070e15 ffffffff fffffffd 00010203 00000001 00000002 00000003 00000004',
    },
    {
      name: 'UD SEND ONLY',
      packet: { ...plain, opcode: UD_SEND_ONLY, payload: Uint8Array.of(9) },
      bytes: '00020001 00090002 6470ffff 00010203 00070e15 00000001 03000002 09000000',
    },
  ])('$name has the bytes of the specification', ({ packet, bytes }) => {
    const pool = new FramePool(undefined, 8, 8);
    const out = new Uint8Array(PACKET_MAX_BYTES);
    const end = encodePacket(pool, frameOf(pool, packet), 0, out, 0);
    expect(Buffer.from(out.subarray(0, end - 4)).toString('hex')).toBe(bytes.replaceAll(' ', ''));
  });

  it('a datagram that starts with a GRH travels as a global packet', () => {
    const pool = new FramePool(undefined, 8, 8);
    const grh = Uint8Array.from({ length: 40 }, (_, i) => i + 1);
    const payload = Uint8Array.of(...grh, 7, 8, 9);
    const packet = { ...plain, opcode: UD_SEND_ONLY, flags: BTH_WITH_GRH, payload };
    const frame = frameOf(pool, packet);
    const out = new Uint8Array(PACKET_MAX_BYTES);
    const end = encodePacket(pool, frame, 0, out, 0);
    expect(out[1] & 3).toBe(3);
    expect(out.subarray(8, 48)).toEqual(grh);
    expect(end).toBe(8 + 40 + 20 + 4 + 4);
    expect(contentOf(pool, decodePacket(pool, out, 0, end))).toEqual(contentOf(pool, frame));
  });

  it('a damaged packet is told from a good one, and from one that nobody sent', () => {
    const pool = new FramePool(undefined, 8, 8);
    const out = new Uint8Array(PACKET_MAX_BYTES);
    const end = encodePacket(pool, frameOf(pool, { ...plain, flags: BTH_DAMAGED }), 0, out, 0);
    const back = decodePacket(pool, out, 0, end);
    expect(pool.words[back * FRAME_WORDS + W_BTH_FLAGS]).toBe(BTH_DAMAGED);
    out[end - 1] ^= 1;
    expect(decodePacket(pool, out, 0, end)).toBe(PACKET_BAD_ICRC);
  });
});

describe('what is not a packet', () => {
  const pool = new FramePool(undefined, 8, 8);
  const out = new Uint8Array(PACKET_MAX_BYTES);
  const end = encodePacket(pool, frameOf(pool, plain), 0, out, 0);
  /** The packet with some bytes changed and its ICRC made right. */
  const altered = (...changes: readonly (readonly [at: number, value: number])[]): Uint8Array => {
    const bytes = out.slice(0, end);
    for (const [at, value] of changes) bytes[at] = value;
    putIcrc(bytes, end - 4, icrcOfLocalPacket(bytes, 0, end - 4));
    return bytes;
  };

  it('every truncation', () => {
    for (let cut = 0; cut < end; cut++) expect(decodePacket(pool, out, 0, cut)).toBeLessThan(0);
    expect(decodePacket(pool, out, 0, 10)).toBe(PACKET_TRUNCATED);
    expect(decodePacket(pool, out, 0, end - 4)).toBe(PACKET_BAD_LENGTH);
  });

  it.each([
    ['no BTH behind the LRH', altered([1, 0]), PACKET_FOREIGN],
    ['a GRH that is not there', altered([1, 3]), PACKET_TRUNCATED],
    ['pad bytes that are not zero', altered([end - 5, 1]), PACKET_BAD_PAD],
    ['headers longer than the packet', altered([8, RC_COMPARE_SWAP]), PACKET_TRUNCATED],
  ])('%s', (_, bytes, problem) => {
    expect(decodePacket(pool, bytes, 0, bytes.length)).toBe(problem);
  });

  it('a READ request with a payload is one for the responder to refuse', () => {
    const frame = frameOf(pool, { ...plain, opcode: RC_READ_REQUEST });
    const bytes = new Uint8Array(PACKET_MAX_BYTES);
    const back = decodePacket(pool, bytes, 0, encodePacket(pool, frame, 0, bytes, 0));
    expect(payloadOf(pool, back)).toEqual(plain.payload);
  });

  it('any flipped bit that the ICRC covers', () => {
    for (let bit = 0; bit < end * 8; bit++) {
      const bytes = out.slice(0, end);
      bytes[bit >> 3] ^= 1 << (bit & 7);
      const frame = decodePacket(pool, bytes, 0, end);
      const isVariant = bit < 8 || bit >> 3 === 12;
      if (frame >= 0) pool.release(frame);
      // Bits 0 to 3 of byte 0 are the LRH version, the other variant ones may change on the way.
      if (!isVariant) expect(frame).toBeLessThan(0);
    }
  });

  it('random bytes', () => {
    const bystanders = inUse(pool);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (bytes, isFramed) => {
        if (isFramed && bytes.length >= 24) {
          bytes[1] = 2;
          bytes[4] = 0;
          bytes[5] = bytes.length >>> 2;
          putIcrc(bytes, bytes.length - 4, icrcOfLocalPacket(bytes, 0, bytes.length - 4));
        }
        const frame = decodePacket(pool, bytes, 0, bytes.length);
        if (frame < 0) return;
        expect(pool.words[frame * FRAME_WORDS + W_PSN]).toBeLessThan(2 ** 24);
        expect(pool.words[frame * FRAME_WORDS + BURST_OFFSET]).toBe(0);
        pool.release(frame);
      }),
      { numRuns: 2000, seed: 3 },
    );
    expect(inUse(pool)).toEqual(bystanders);
  });
});
