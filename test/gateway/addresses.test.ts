/** Addresses from text, and what follows from them. */
import { describe, expect, it } from 'vitest';
import {
  gidText,
  ipText,
  isUnicast,
  linkLocalOf,
  multicastMacOf,
  parseIp,
  parseMac,
  solicitedNodeOf,
} from '../../harness/gateway/addresses.ts';
import { formatMac } from '../../transport/index.ts';

describe('addresses', () => {
  const texts: readonly [text: string, ip: string | undefined, gid?: string][] = [
    ['192.0.2.1', '192.0.2.1', '::ffff:192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1', '::ffff:192.0.2.1'],
    ['::ffff:c000:201', '192.0.2.1'],
    ['fe80::5054:ff:fe00:1', 'fe80::5054:ff:fe00:1', 'fe80::5054:ff:fe00:1'],
    ['FE80:0:0:0:5054:00FF:FE00:0001', 'fe80::5054:ff:fe00:1'],
    ['2001:db8::1:0:0:1', '2001:db8::1:0:0:1'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
    ['::', '::'],
    ['::1', '::1'],
    ['1:2:3:4:5:6:7:8', '1:2:3:4:5:6:7:8'],
    ['fe80::1%eth0', undefined],
    ['192.0.2', undefined],
    ['192.0.2.256', undefined],
    ['fe80::1::2', undefined],
    ['', undefined],
  ];
  for (const [text, ip, gid] of texts) {
    it(`'${text}' is ${ip ?? 'no address'}`, () => {
      const bytes = parseIp(text);
      expect(bytes && ipText(bytes)).toBe(ip);
      if (bytes && gid) expect(gidText(bytes)).toBe(gid);
    });
  }

  it('unicast MACs only', () => {
    const good = parseMac('52:54:00:00:00:01') as Uint8Array;
    expect(formatMac(good)).toBe('52:54:00:00:00:01');
    for (const bad of [
      '01:00:00:00:00:00',
      'ff:ff:ff:ff:ff:ff',
      '00:00:00:00:00:00',
      '52:54',
      'x',
    ]) {
      expect(parseMac(bad)).toBeUndefined();
    }
  });

  it('link-local addresses, groups and their MACs follow from others', () => {
    const mac = parseMac('52:54:00:00:00:01') as Uint8Array;
    expect(ipText(linkLocalOf(mac))).toBe('fe80::5054:ff:fe00:1');
    const group = solicitedNodeOf(linkLocalOf(mac));
    expect(ipText(group)).toBe('ff02::1:ff00:1');
    expect(formatMac(multicastMacOf(group))).toBe('33:33:ff:00:00:01');
    expect(isUnicast(group)).toBe(false);
    for (const [text, expected] of [
      ['0.0.0.0', false],
      ['224.0.0.1', false],
      ['255.255.255.255', false],
      ['::', false],
      ['192.0.2.1', true],
      ['fe80::1', true],
    ] as const) {
      expect(isUnicast(parseIp(text) as Uint8Array)).toBe(expected);
    }
  });
});
