/** Connection exchanges inside captures, against what the tools themselves printed. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { cmExchanges, cmServices } from '../../harness/conform/cm-exchange.ts';
import { type Introduction, tcpExchanges } from '../../harness/conform/tcp-exchange.ts';
import { toolSetups } from '../../harness/conform/tool-setup.ts';
import { load } from './mutate.ts';

const captures = new URL('../captures/', import.meta.url).pathname;
const more = new URL('captures/', import.meta.url).pathname;

/** `local address: … QPN 0x3c, PSN 0x262389` of the client, and of the server. */
function printed(path: string): [qpn: number, psn: number][] {
  const text = readFileSync(`${path}.txt`, 'utf8');
  const lines = text.matchAll(/local address:.*QPN 0x([0-9a-f]+),? PSN 0x([0-9a-f]+)/g);
  return [...lines].map(([, qpn, psn]) => [Number(`0x${qpn}`), Number(`0x${psn}`)]);
}

const numbers = (side: Introduction): [number, number] => [side.qpn, side.sendPsn];

describe('an exchange over TCP', () => {
  it.each([
    `${captures}tool_rc_pingpong`,
    `${captures}tool_uc_pingpong`,
    `${captures}tool_ud_pingpong`,
    `${captures}tool_send_bw`,
    `${captures}tool_write_imm_bw`,
    `${captures}tool_atomic_fa_bw`,
    `${more}tool_send_q3`,
    `${more}tool_srq_pingpong`,
  ])('%s: what was sent is what was printed', (path) => {
    const pairs = tcpExchanges(load(path).capture.others);
    const told = pairs.flatMap((pair) => pair.map(numbers));
    const expected = printed(path);
    expect(told.length).toBe(expected.length);
    expect(told.sort()).toEqual(expected.sort());
  });

  it('brings the memory of perftest', () => {
    const [[a, b]] = tcpExchanges(load(`${captures}tool_write_bw`).capture.others) as [
      [Introduction, Introduction],
    ];
    expect(a.memory).toEqual({ rkey: 0x3233, address: 0x564d612f6000 });
    expect(b.memory).toEqual({ rkey: 0x32f4, address: 0x55d70664b000 });
    expect(b.gid).toBe('00000000000000000000ffffc0000202');
  });

  it('is read from segments in any order, sent twice, cut anywhere', () => {
    const { others } = load(`${captures}tool_send_bw`).capture;
    const expected = tcpExchanges(others);
    expect(tcpExchanges([...others].reverse())).toEqual(expected);
    expect(tcpExchanges([...others, ...others])).toEqual(expected);
    expect(tcpExchanges(others.flatMap(cut))).toEqual(expected);
    expect(tcpExchanges(others.slice(0, 8))).toEqual([]);
  });
});

describe('an exchange of the communication manager', () => {
  it('gives both queue pairs, their first PSNs, the path MTU', () => {
    expect(cmExchanges(load(`${captures}tool_rping`).capture.packets)).toEqual([
      {
        sides: [
          {
            gid: '00000000000000000000ffffc0000202',
            qpn: 0x4a,
            receivePsn: 0x93de47,
            maxRdAtomic: 1,
            maxDestRdAtomic: 1,
            rnrRetry: 7,
          },
          {
            gid: '00000000000000000000ffffc0000201',
            qpn: 0x4a,
            receivePsn: 0x824545,
            maxRdAtomic: 1,
            maxDestRdAtomic: 1,
            rnrRetry: 7,
          },
        ],
        mtu: 1024,
        retry: 7,
        pkey: 0xffff,
      },
    ]);
  });

  it('gives datagram services, and finds who used them', () => {
    const { capture } = load(`${more}tool_udaddy`);
    const services = cmServices(capture.packets);
    expect(services.length).toBe(1);
    expect(services.every(({ qkey }) => qkey === 0x01234567)).toBe(true);
    expect(toolSetups(capture).map(({ qpn }) => qpn)).toEqual([0x1d, 0x1d]);
  });
});

/** A TCP segment as two: its first three bytes of data, and the rest. */
function cut(frame: Uint8Array): Uint8Array[] {
  const isTcp = frame[12] === 8 && frame[13] === 0 && frame[23] === 6;
  if (!isTcp) return [frame];
  const tcp = 14 + (frame[14]! & 15) * 4;
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const end = 14 + view.getUint16(16);
  const data = tcp + (frame[tcp + 12]! >>> 4) * 4;
  if (end - data < 4) return [frame];
  const first = Uint8Array.from(frame.subarray(0, data + 3));
  new DataView(first.buffer).setUint16(16, data + 3 - 14);
  const second = Uint8Array.from([...frame.subarray(0, data), ...frame.subarray(data + 3, end)]);
  const other = new DataView(second.buffer);
  other.setUint16(16, end - 3 - 14);
  other.setUint32(tcp + 4, view.getUint32(tcp + 4) + 3);
  return [second, first];
}
