/** Receives of several entries: every byte of a message lands where the entries say, and no other. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ZERO_BASED,
  BTH_WITH_GRH,
  BUS_RECV_DOORBELL,
  CMD_CREATE_MKEY,
  QPT_RC,
  QPT_UC,
  QPT_UD,
  RC_SEND_FIRST,
  RC_SEND_LAST,
  RC_SEND_MIDDLE,
  RC_SEND_ONLY,
  SERVICE_RC,
  SERVICE_UC,
  UD_SEND_ONLY,
  US,
  WC_SUCCESS,
} from '../../transport/index.ts';
import { type BareSge, READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE } from '../fixtures/pair.ts';
import { LoneAdapter } from '../fixtures/wire-peer.ts';

const SIZE = 1 << 19;
const ZERO_BASED = (2 << 8) | 7;
/** Where the zero-based region starts. */
const ZERO = 3;
/** Entries are spread over the region, so that they never meet. */
const SPREAD = SIZE / 16;

const entry = fc.record({
  offset: fc.oneof(fc.nat(5000), fc.constantFrom(0, 4095, 4096, 4097)),
  length: fc.oneof(fc.nat(9000), fc.constantFrom(0, 1, 39, 40, 41, 256, 4096)),
  isZeroBased: fc.boolean(),
  /** Whether its pages are missing at first. */
  isMissing: fc.boolean(),
});
const story = fc.record({
  type: fc.constantFrom(QPT_RC, QPT_UC, QPT_UD),
  mtu: fc.constantFrom(256, 512, 1024, 2048, 4096),
  entries: fc.array(entry, { minLength: 1, maxLength: 16 }),
  /** How much of the room the message takes, in 1000. */
  share: fc.nat(1000),
  hasHeader: fc.boolean(),
});

it('scattered receives get exactly what was sent', () => {
  fc.assert(
    fc.property(story, ({ type, mtu, entries, share, hasHeader }) => {
      const service = type === QPT_RC ? SERVICE_RC : SERVICE_UC;
      const isDatagram = type === QPT_UD;
      const sges = entries.map(({ offset, length, isZeroBased }, i): BareSge => {
        const address = BASE + ZERO + i * SPREAD + offset;
        if (!isZeroBased) return { address, length, lkey: REGION_KEY };
        return { address: address - BASE - ZERO, length, lkey: ZERO_BASED };
      });
      const room = entries.reduce((sum, { length }) => sum + length, 0);
      if (isDatagram && room < 40) return;
      const space = isDatagram ? Math.min(room - 40, 4096) : room;
      const length = Math.floor((space * share) / 1000);
      const data = Uint8Array.from({ length }, (_, i) => 1 + ((i * 31 + (i >> 8)) % 255));

      const lone = new LoneAdapter({
        bytes: SIZE,
        setUp: { type, mtu, access: ACCESS_LOCAL_WRITE, minRnrTimer: 1, qkey: 5 },
      });
      const { host, peer } = lone;
      const present = (page: number): number => ((BASE / 4096 + page) << 2) | 3;
      host.at(READY_PS / 2, () => {
        const access = ACCESS_LOCAL_WRITE | ACCESS_ZERO_BASED;
        host.command(CMD_CREATE_MKEY, [1, access, 7], [BASE + ZERO, SIZE - ZERO]);
        host.table(ZERO_BASED, 0, SIZE / 4096, present);
        entries.forEach(({ isMissing }, i) => {
          // Unreliable services lose what meets a missing page.
          if (!isMissing || type !== QPT_RC) return;
          const pages = SPREAD / 4096;
          host.table(REGION_KEY, i * pages, pages, () => 0);
          host.table(ZERO_BASED, i * pages, pages, () => 0);
        });
        host.postBuffer(BUS_RECV_DOORBELL, 0x11, 1, sges);
      });
      host.onFault = ({ token, mkey, address }) => {
        host.table(mkey, Math.floor(address / 4096) - BASE / 4096, 1, (page) => present(page));
        host.resumeFault(token);
      };

      // A peer that goes on only when it knows that the last packet was taken.
      const header = Uint8Array.from({ length: 40 }, (_, i) => 200 + (i % 50));
      const isHeaded = isDatagram && hasHeader;
      const packets = Math.max(1, Math.ceil(length / (isDatagram ? 4096 : mtu)));
      const packet = (i: number): Parameters<typeof peer.send>[0] => {
        if (isDatagram) {
          const payload = isHeaded ? Uint8Array.of(...header, ...data) : data;
          const flags = isHeaded ? BTH_WITH_GRH : 0;
          return { opcode: UD_SEND_ONLY, psn: 100, rkey: 5, flags, payload };
        }
        const opcodes =
          packets === 1
            ? RC_SEND_ONLY
            : i === 0
              ? RC_SEND_FIRST
              : i === packets - 1
                ? RC_SEND_LAST
                : RC_SEND_MIDDLE;
        const payload = data.slice(i * mtu, (i + 1) * mtu);
        return { opcode: opcodes | service, psn: 100 + i, flags: 2, payload };
      };
      let next = 0;
      const sendNext = (): void => {
        if (next < packets) peer.send(packet(next));
      };
      peer.onPacket = ({ syndrome }) => {
        if (syndrome === 0x1f) {
          next++;
          sendNext();
        } else peer.at(peer.node.now + 500 * US, sendNext);
      };
      peer.at(READY_PS, () => {
        if (type === QPT_RC) sendNext();
        else for (let i = 0; i < packets; i++) peer.send(packet(i));
      });
      lone.drive();

      const extra = isDatagram ? 40 : 0;
      expect(host.completions.map((c) => [c.status, c.bytes])).toEqual([
        [WC_SUCCESS, length + extra],
      ]);
      // What the whole region must hold: entry by entry, the rest untouched.
      const expected = new Uint8Array(SIZE);
      const stream = isDatagram
        ? Uint8Array.of(...(isHeaded ? header : new Uint8Array(40)), ...data)
        : data;
      let at = 0;
      for (const [i, { offset, length: room }] of entries.entries()) {
        const piece = stream.subarray(at, at + room);
        expected.set(piece, ZERO + i * SPREAD + offset);
        at += piece.length;
      }
      const after = host.read(BASE, SIZE);
      if (Buffer.compare(after, expected) !== 0) throw new Error('bytes are not where they belong');
      expect(lone.pool.framesInUse).toBe(0);
      lone.hca.checkLeaks();
    }),
    { numRuns: Number(process.env.RUNS ?? 100) },
  );
});
