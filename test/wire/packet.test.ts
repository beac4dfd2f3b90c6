/** Packets on the wire: the opcode table, headers, ICRC, and what is refused. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  BTH_ACK_REQUEST,
  BTH_SOLICITED,
  BURST,
  BURST_OFFSET,
  decodePacket,
  encodePacket,
  FRAME_WORDS,
  FramePool,
  OP_IMMEDIATE,
  OP_KNOWN,
  OP_PAYLOAD,
  opFlags,
  opHeaderBytes,
  opName,
  PACKET_BAD_ADDRESS,
  PACKET_BAD_ICRC,
  PACKET_BAD_LENGTH,
  PACKET_MAX_BYTES,
  PACKET_TRUNCATED,
  PACKET_UNKNOWN_OPCODE,
  PAYLOAD_BYTES,
  packetWireBytes,
  RC_ACKNOWLEDGE,
  RC_READ_REQUEST,
  RC_SEND_ONLY,
  RC_WRITE_ONLY_IMM,
  W_AETH,
  W_BTH_FLAGS,
  W_DEST_QPN,
  W_DMA_BYTES,
  W_IMMEDIATE,
  W_LIDS,
  W_OPCODE,
  W_PKEY,
  W_PSN,
  W_RKEY,
} from '../../transport/index.ts';
import { icrcOfLocalPacket } from '../../transport/wire/icrc.ts';

const known = Array.from({ length: 256 }, (_, op) => op).filter((op) => opFlags[op] & OP_KNOWN);

/** A wire frame with every field set that its opcode carries. */
function frameOf(pool: FramePool, opcode: number, payload: Uint8Array, seed: number): number {
  const frame = pool.allocate();
  const base = frame * FRAME_WORDS;
  const w = pool.words;
  const has = (flag: number): boolean => (opFlags[opcode] & flag) !== 0;
  const reth = opHeaderBytes[opcode] >= 28;
  w[base + W_OPCODE] = opcode;
  w[base + W_DEST_QPN] = seed & 0xffffff;
  w[base + W_PSN] = (seed * 7) & 0xffffff;
  w[base + W_BTH_FLAGS] = seed & (BTH_ACK_REQUEST | BTH_SOLICITED);
  w[base + W_LIDS] = (2 << 16) | 1;
  w[base + W_PKEY] = 0xffff;
  if (reth) {
    w[base + W_RKEY] = seed | 0;
    w[base + W_DMA_BYTES] = (seed * 3) | 0;
    pool.doubles[frame * 2] = seed * 1_000_003;
  } else if (!has(OP_PAYLOAD) || opHeaderBytes[opcode] === 16) {
    if (has(OP_IMMEDIATE)) w[base + W_IMMEDIATE] = seed | 0;
    else w[base + W_AETH] = (seed * 5) | 0;
  }
  if (reth && has(OP_IMMEDIATE)) w[base + W_IMMEDIATE] = seed | 0;
  if (has(OP_PAYLOAD) && payload.length > 0) {
    w[base + BURST] = pool.burstFromBytes(payload, 0, payload.length);
    w[base + PAYLOAD_BYTES] = payload.length;
  }
  return frame;
}

function content(pool: FramePool, frame: number): number[] {
  const base = frame * FRAME_WORDS;
  return [...pool.words.subarray(base, base + BURST), pool.doubles[frame * 2]];
}

describe('opcode table', () => {
  it('has every RC opcode of SEND, RDMA WRITE, RDMA READ and ACK, with lengths that add up', () => {
    expect(
      known.map((op) => `${op.toString(16)} ${opName[op]} ${opHeaderBytes[op]}`),
    ).toMatchInlineSnapshot(`
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
      ]
    `);
  });

  it('a packet takes LRH, headers, padded payload, ICRC and VCRC on the link', () => {
    expect(packetWireBytes(RC_SEND_ONLY, 5)).toBe(8 + 12 + 8 + 4 + 2);
    expect(packetWireBytes(RC_ACKNOWLEDGE, 0)).toBe(8 + 16 + 4 + 2);
  });
});

describe('encode and decode', () => {
  it('agree for every opcode, length and dirty buffer', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...known),
        fc.uint8Array({ maxLength: 4096 }),
        fc.integer({ min: 1, max: 2 ** 31 - 1 }),
        fc.integer({ min: 0, max: 9 }),
        (opcode, payload, seed, at) => {
          const pool = new FramePool(undefined, 8, 8);
          const frame = frameOf(pool, opcode, payload, seed);
          const out = new Uint8Array(PACKET_MAX_BYTES + 16).fill(0xa5);
          const end = encodePacket(pool, frame, 0, out, at);
          expect((end - at) % 4).toBe(0);
          const back = decodePacket(pool, out, at, end);
          expect(content(pool, back)).toEqual(content(pool, frame));
          const bytes = pool.words[back * FRAME_WORDS + PAYLOAD_BYTES];
          const got = new Uint8Array(bytes);
          if (bytes > 0) {
            const base = back * FRAME_WORDS;
            pool.burstToBytes(
              pool.words[base + BURST],
              pool.words[base + BURST_OFFSET],
              bytes,
              got,
              0,
            );
            expect(got).toEqual(payload);
          }
          pool.release(back);
          pool.release(frame);
          expect([pool.framesInUse, pool.burstsInUse, pool.blocks.blocksInUse]).toEqual([0, 0, 0]);
        },
      ),
      { numRuns: 300, seed: 1 },
    );
  });

  it('an RDMA WRITE ONLY with immediate has the bytes of the specification', () => {
    const pool = new FramePool(undefined, 8, 8);
    const frame = frameOf(pool, RC_WRITE_ONLY_IMM, Uint8Array.of(1, 2, 3, 4, 5), 0x010203);
    const out = new Uint8Array(PACKET_MAX_BYTES);
    const end = encodePacket(pool, frame, 0, out, 0);
    const hex = Buffer.from(out.subarray(0, end)).toString('hex');
    expect(
      hex
        .match(/.{1,8}/g)
        ?.slice(0, -1)
        .join(' '),
    ).toMatchInlineSnapshot(
      `"00020001 000d0002 0bf0ffff 00010203 80070e15 0000000f 60f54cc9 00010203 00030609 00010203 01020304 05000000"`,
    );
  });

  it('packet k of a train is the packet that would have been sent alone', () => {
    const pool = new FramePool(undefined, 8, 8);
    const payload = Uint8Array.from({ length: 4096 }, (_, i) => i * 31);
    const train = frameOf(pool, 0x07, payload, 99);
    pool.words[train * FRAME_WORDS + PAYLOAD_BYTES] = 1024;
    const single = frameOf(pool, 0x07, payload.subarray(2048, 3072), 99);
    pool.words[single * FRAME_WORDS + W_PSN] += 2;
    const a = new Uint8Array(PACKET_MAX_BYTES);
    const b = new Uint8Array(PACKET_MAX_BYTES);
    encodePacket(pool, train, 2, a, 0);
    encodePacket(pool, single, 0, b, 0);
    expect(a).toEqual(b);
  });
});

describe('ICRC', () => {
  /** The CRC-32 of the specification, bit by bit. */
  function slowIcrc(bytes: Uint8Array): number {
    let crc = 0xffffffff;
    bytes.forEach((byte, i) => {
      const masked = i === 0 ? byte | 0xf0 : i === 12 ? 0xff : byte;
      crc ^= masked;
      for (let k = 0; k < 8; k++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
    });
    return ~crc >>> 0;
  }

  it('is the CRC of the packet with the variant fields all ones', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 20, maxLength: 200 }), (bytes) => {
        expect(icrcOfLocalPacket(bytes, 0, bytes.length)).toBe(slowIcrc(bytes));
      }),
      { numRuns: 50, seed: 2 },
    );
  });
});

describe('what is not a packet', () => {
  const pool = new FramePool(undefined, 8, 8);
  const out = new Uint8Array(PACKET_MAX_BYTES);
  const write = frameOf(pool, RC_WRITE_ONLY_IMM, Uint8Array.of(1, 2, 3, 4, 5), 7);
  const end = encodePacket(pool, write, 0, out, 0);
  const altered = (at: number, value: number): Uint8Array => {
    const bytes = out.slice(0, end);
    bytes[at] = value;
    return bytes;
  };

  it('every truncation', () => {
    for (let cut = 0; cut < end; cut++) expect(decodePacket(pool, out, 0, cut)).toBeLessThan(0);
    expect(decodePacket(pool, out, 0, 10)).toBe(PACKET_TRUNCATED);
    expect(decodePacket(pool, out, 0, end - 4)).toBe(PACKET_BAD_LENGTH);
  });

  it('an unknown opcode, and any flipped bit', () => {
    expect(decodePacket(pool, altered(8, 0xe0), 0, end)).toBe(PACKET_UNKNOWN_OPCODE);
    expect(decodePacket(pool, altered(end - 5, 9), 0, end)).toBe(PACKET_BAD_ICRC);
    // The virtual lane and the reserved byte of the BTH are not covered.
    expect(decodePacket(pool, altered(0, 0xf0), 0, end)).toBeGreaterThanOrEqual(0);
  });

  it('a virtual address above 2^53', () => {
    const read = frameOf(pool, RC_READ_REQUEST, new Uint8Array(0), 7);
    const bytes = new Uint8Array(PACKET_MAX_BYTES);
    const readEnd = encodePacket(pool, read, 0, bytes, 0);
    bytes[20] = 0xff;
    const icrc = icrcOfLocalPacket(bytes, 0, readEnd - 4);
    new DataView(bytes.buffer).setUint32(readEnd - 4, icrc, true);
    expect(decodePacket(pool, bytes, 0, readEnd)).toBe(PACKET_BAD_ADDRESS);
  });

  it('random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const frame = decodePacket(pool, bytes, 0, bytes.length);
        if (frame >= 0) pool.release(frame);
      }),
      { numRuns: 500, seed: 3 },
    );
  });
});
