/** Packets of real Linux hosts: every one is read, and written again byte for byte. */
import { describe, expect, it } from 'vitest';
import {
  decodeRoce,
  encodeRoce,
  FramePool,
  LINK_ETHERNET,
  opName,
  PACKET_FOREIGN,
  ROCE_MAX_BYTES,
  RoceHeader,
  readCapture,
  rxeIcrcRules,
} from '../../transport/index.ts';
import { captureBytes, captureNames } from '../captures/captures.ts';
import { inUse } from './wire-frames.ts';

/** Frames that are not RoCEv2: ARP, TCP, neighbour discovery. */
const others = new Map(
  Object.entries({
    filterdump_rc_pingpong: 14,
    rc_dup: 2,
    rc_ipv6: 12,
    rc_recv_too_small: 2,
    tool_atomic_cs_bw: 39,
    tool_atomic_fa_bw: 41,
    tool_netem_loss: 27,
    tool_odp_pingpong: 12,
    tool_rc_pingpong: 11,
    tool_send_bw: 31,
    tool_uc_pingpong: 12,
    tool_ud_pingpong: 12,
    tool_write_bw: 40,
    tool_write_imm_bw: 28,
  }),
);

describe('captured packets', () => {
  it.each(captureNames)('%s', (name) => {
    const pool = new FramePool(undefined, 4, 4);
    const header = new RoceHeader();
    const out = new Uint8Array(ROCE_MAX_BYTES);
    let foreign = 0;
    for (const { number, linkType, bytes, originalBytes } of readCapture(
      captureBytes(name),
      name,
    )) {
      expect([linkType, originalBytes]).toEqual([LINK_ETHERNET, bytes.length]);
      const frame = decodeRoce(pool, bytes, 0, bytes.length, header, { icrcRules: rxeIcrcRules });
      if (frame === PACKET_FOREIGN) {
        foreign++;
        continue;
      }
      expect(frame, `frame ${number}`).toBeGreaterThanOrEqual(0);
      expect(header.icrcError, `ICRC of frame ${number}`).toBe(0);
      const isFlush = opName[bytes[header.bthAt]] === 'RC_FLUSH';
      expect(header.icrcRule?.name).toBe(isFlush ? 'rxe-flush-icrc' : undefined);
      expect([header.checksumError, header.udpChecksumError, header.padBytes]).toEqual([0, 0, 0]);
      out.fill(0xa5);
      const end = encodeRoce(pool, frame, 0, header, out, 0);
      expect(Buffer.compare(out.subarray(0, end), bytes), `frame ${number}`).toBe(0);
      pool.release(frame);
    }
    expect(foreign).toBe(others.get(name) ?? 0);
    expect(inUse(pool)).toEqual([0, 0, 0]);
  });
});
