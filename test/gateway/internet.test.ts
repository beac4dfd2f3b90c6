/** ARP, neighbour discovery and echo requests: answered as Linux answers them. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { linkLocalOf, parseIp, parseMac } from '../../harness/gateway/addresses.ts';
import { askFor, type PortAddresses, readFrame } from '../../harness/gateway/internet.ts';
import { checksumAdd, checksumEnd, get16, put16, readCapture } from '../../transport/index.ts';
import { captureBytes, capturePath } from '../captures/captures.ts';

const ip = (text: string) => parseIp(text) as Uint8Array;
const mac = (text: string) => parseMac(text) as Uint8Array;
const hex = (bytes: Uint8Array | undefined) => Buffer.from(bytes ?? []).toString('hex');

/** Guest number `n` of the captures. */
function guest(n: number): PortAddresses {
  const own = mac(`52:54:00:00:00:0${n}`);
  return { mac: own, ipv4: ip(`192.0.2.${n}`), ipv6: linkLocalOf(own) };
}

/** The frames of a capture that are neither IPv4 nor RoCEv2: questions and answers in turn. */
function talk(name: string): Uint8Array[] {
  return [...readCapture(captureBytes(name), capturePath(name))]
    .map(({ bytes }) => new Uint8Array(bytes))
    .filter((bytes) => {
      const type = get16(bytes, 12);
      return type === 0x0806 || (type === 0x86dd && bytes[20] === 58);
    });
}

/** An echo request to guest 2 from guest 1, over IPv4 or IPv6. */
function echo(version: 4 | 6, payload: Uint8Array): Uint8Array {
  const [from, to] = [guest(1), guest(2)];
  const headBytes = version === 4 ? 34 : 54;
  const frame = new Uint8Array(headBytes + 8 + payload.length);
  frame.set(to.mac);
  frame.set(from.mac, 6);
  const body = frame.subarray(headBytes);
  body[0] = version === 4 ? 8 : 128;
  put16(body, 4, 0x1234);
  put16(body, 6, 7);
  body.set(payload, 8);
  if (version === 4) {
    frame.set([0x08, 0x00, 0x45, 0, 0, 0, 0xab, 0xcd, 0x40, 0, 64, 1, 0, 0], 12);
    put16(frame, 16, frame.length - 14);
    frame.set(from.ipv4, 26);
    frame.set(to.ipv4, 30);
    put16(frame, 24, checksumEnd(checksumAdd(frame, 14, 34)));
    put16(body, 2, checksumEnd(checksumAdd(body, 0, body.length)));
  } else {
    frame.set([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 58, 64], 12);
    put16(frame, 18, body.length);
    frame.set(from.ipv6, 22);
    frame.set(to.ipv6, 38);
    const sum = checksumAdd(frame, 22, 54, 58 + body.length);
    put16(body, 2, checksumEnd(checksumAdd(body, 0, body.length, sum)));
  }
  return frame;
}

describe('questions that Linux asked and answered', () => {
  for (const [name, asker] of [
    ['rc_ipv6', 2],
    ['filterdump_rc_pingpong', 2],
  ] as const) {
    it(`are asked and answered with the same bytes (${name})`, () => {
      const frames = talk(name);
      expect(frames.length).toBeGreaterThan(1);
      const answerer = 3 - asker;
      for (let i = 0; i + 1 < frames.length; i += 2) {
        const [question, answer] = [frames[i], frames[i + 1]] as [Uint8Array, Uint8Array];
        const isArp = get16(question, 12) === 0x0806;
        const to = guest(question[11] === asker ? answerer : asker);
        const reading = readFrame(question, to);
        expect(reading.kind).toBe(isArp ? 'arp' : 'neighbour');
        // An Ethernet pads what the guests' virtual one did not.
        expect(hex(reading.answer?.subarray(0, answer.length))).toBe(hex(answer));
        const from = guest(question[11]);
        expect(hex(reading.sender?.mac)).toBe(hex(from.mac));
        expect(hex(reading.sender?.ip)).toBe(hex(isArp ? from.ipv4 : from.ipv6));
        // Linux asks a neighbour that it knows by name; to one that it does not know, everybody.
        const asked = askFor(isArp ? to.ipv4 : to.ipv6, from);
        if ((question[0] & 1) === 1) {
          expect(hex(asked.subarray(0, question.length))).toBe(hex(question));
        }
        const learnt = readFrame(answer, from);
        expect(hex(learnt.sender?.mac)).toBe(hex(to.mac));
        expect(learnt.answer).toBeUndefined();
      }
    });
  }
});

describe('an echo request', () => {
  const own = {
    mac: mac('02:00:00:00:00:09'),
    ipv4: ip('192.0.2.9'),
    ipv6: linkLocalOf(mac('02:00:00:00:00:09')),
  };
  const zeros = (count: number) => '00'.repeat(count);
  // As a Linux guest sent them, and as answered so that its ping took them for right.
  const pings: readonly [version: string, request: string, reply: string][] = [
    [
      'IPv4',
      `0200000000095254000000010800450000\
3029d0400040018cf2c0000201c000020908003da201fc000061515710${zeros(16)}`,
      `5254000000010200000000090800450000\
30000040004001b6c2c0000209c0000201000045a201fc000061515710${zeros(16)}`,
    ],
    [
      'IPv6',
      `02000000000952540000000186dd600c310c001c3a40fe80000000000000505400fffe000001\
fe80000000000000000000fffe00000980006ca801fb00006e955710${zeros(16)}`,
      `52540000000102000000000986dd60000000001c3a40fe80000000000000000000fffe000009\
fe80000000000000505400fffe00000181006ba801fb00006e955710${zeros(16)}`,
    ],
  ];
  for (const [version, request, reply] of pings) {
    it(`of Linux over ${version} is answered as it likes it`, () => {
      const frame = new Uint8Array(Buffer.from(request, 'hex'));
      expect(hex(readFrame(frame, own).answer)).toBe(reply);
    });
  }

  for (const version of [4, 6] as const) {
    it(`over IPv${version} is answered with its own payload and a right checksum`, () => {
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 1472 }), (payload) => {
          const frame = echo(version, payload);
          const { kind, answer } = readFrame(frame, guest(2));
          expect(kind).toBe('icmp');
          // To the one who asked, who takes it in as an answer and asks nothing back.
          expect(hex(answer?.subarray(0, 12))).toBe(
            hex(frame.slice(6, 12)) + hex(frame.slice(0, 6)),
          );
          expect(readFrame(answer as Uint8Array, guest(1))).toEqual({ kind: 'foreign_protocol' });
          const head = version === 4 ? 34 : 54;
          expect(answer?.[head]).toBe(version === 4 ? 0 : 129);
          expect(hex(answer?.subarray(head + 4, head + 8 + payload.length))).toBe(
            hex(frame.subarray(head + 4)),
          );
        }),
        { numRuns: 50 },
      );
    });
  }
});

describe('frames that are not answered', () => {
  const request = talk('filterdump_rc_pingpong')[0] as Uint8Array;
  const solicitation = talk('rc_ipv6').find((frame) => frame[20] === 58) as Uint8Array;
  const changed = (frame: Uint8Array, at: number, value: number): Uint8Array => {
    const copy = frame.slice();
    copy[at] = value;
    return copy;
  };
  const payload = new Uint8Array(8);
  const cases: readonly [what: string, frame: Uint8Array, kind: string][] = [
    ['nothing', new Uint8Array(0), 'runt'],
    ['half a header', request.slice(0, 13), 'runt'],
    ['a frame for somebody else', changed(echo(4, payload), 5, 9), 'foreign_destination'],
    ['a frame from a group', changed(echo(4, payload), 6, 1), 'foreign_destination'],
    ['another EtherType', changed(echo(4, payload), 12, 0x88), 'foreign_protocol'],
    ['a VLAN', changed(changed(echo(4, payload), 12, 0x81), 13, 0), 'foreign_protocol'],
    ['a short ARP', request.slice(0, 40), 'malformed'],
    ['an ARP for tokens', changed(request, 15, 6), 'malformed'],
    ['an IPv4 packet that is cut off', echo(4, payload).slice(0, 40), 'malformed'],
    ['an IPv4 header of no length', changed(echo(4, payload), 14, 0x40), 'malformed'],
    ['an IPv4 header with a wrong checksum', changed(echo(4, payload), 24, 0), 'malformed'],
    ['an ICMP message with a wrong checksum', changed(echo(4, payload), 36, 0), 'malformed'],
    ['an ICMPv6 message with a wrong checksum', changed(echo(6, payload), 56, 0), 'malformed'],
    ['an IPv6 packet that is cut off', echo(6, payload).slice(0, 50), 'malformed'],
    ['a solicitation from another link', changed(solicitation, 21, 254), 'malformed'],
    ['a solicitation without a target', solicitation.slice(0, 60), 'malformed'],
  ];
  for (const [what, frame, kind] of cases) {
    it(what, () => {
      const own = frame === solicitation || what.includes('solicitation') ? guest(1) : guest(2);
      const reading = readFrame(frame, what.includes('ARP') ? guest(1) : own);
      expect(reading.kind).toBe(kind);
      expect(reading.answer).toBeUndefined();
    });
  }

  it('random bytes never throw', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 120 }),
        fc.constantFrom([0x08, 0x00], [0x08, 0x06], [0x86, 0xdd], [0x81, 0x00]),
        fc.boolean(),
        (bytes, type, isBroadcast) => {
          const frame = bytes.slice();
          frame.set(
            (isBroadcast ? new Uint8Array(6).fill(255) : guest(2).mac).slice(0, bytes.length),
          );
          if (bytes.length >= 14) frame.set(type, 12);
          const { answer } = readFrame(frame, guest(2));
          expect(answer === undefined || answer.length >= 42).toBe(true);
        },
      ),
      { numRuns: 2000 },
    );
  });
});
