/** The tools' TCP exchange against real ones, byte for byte, and against what is none. */
import { createServer } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { capturedExchange, PlayedLine } from './captured-exchange.ts';
import { gidOf, ipv4Of } from './exchange/address.ts';
import { connect, ExchangeError, OneConnection } from './exchange/line.ts';
import * as perftest from './exchange/perftest.ts';
import * as pingpong from './exchange/pingpong.ts';

/** Versions, cycle, cache line and MTU come before the first address, and five words of a report. */
const OPENING_BYTES = 16 + 4 + 4 + 2;
const REPORT_BYTES = 40;

const perftests = [
  { name: 'tool_send_bw', isTwoSided: true },
  { name: 'tool_write_imm_bw', isTwoSided: true },
  { name: 'tool_netem_loss', isTwoSided: true },
  { name: 'tool_write_bw', isTwoSided: false },
  { name: 'tool_atomic_fa_bw', isTwoSided: false },
  { name: 'tool_atomic_cs_bw', isTwoSided: false },
];

function addressIn(bytes: Buffer): perftest.PerftestAddress {
  return perftest.decodeAddress(
    bytes.subarray(OPENING_BYTES, OPENING_BYTES + perftest.ADDRESS_BYTES),
  );
}

/** The report, which is followed by one more address. */
function reportIn(bytes: Buffer): perftest.PerftestReport {
  const end = bytes.length - perftest.ADDRESS_BYTES;
  const words = [0, 1, 2, 3, 4].map((i) =>
    bytes.subarray(end - REPORT_BYTES + 8 * i).subarray(0, 8),
  );
  return perftest.decodeReport(words);
}

describe.each(perftests)('perftest as captured in $name', ({ name, isTwoSided }) => {
  const captured = capturedExchange(name);
  it.each(['client', 'server'] as const)('says what the %s said', async (role) => {
    const mine = captured[role];
    const theirs = captured[role === 'client' ? 'server' : 'client'];
    const line = new PlayedLine(theirs);
    const met: unknown[] = [];
    const report = await perftest.runPerftest(line, role, {
      mtuBytes: 1024,
      address: addressIn(mine),
      isTwoSided,
      report: isTwoSided ? perftest.noReport : reportIn(mine),
      connect: async (address, mtuBytes) => void met.push(address, mtuBytes),
      run: async (address) => void met.push(address),
    });
    expect(line.ours.toString('latin1')).toBe(mine.toString('latin1'));
    expect(line.isExhausted).toBe(true);
    expect(met).toEqual([addressIn(theirs), 1024, addressIn(theirs)]);
    expect(report).toEqual(isTwoSided ? undefined : reportIn(theirs));
  });
});

const pingpongs = ['tool_rc_pingpong', 'tool_uc_pingpong', 'tool_ud_pingpong', 'tool_odp_pingpong'];

describe.each(pingpongs)('ping-pong as captured in %s', (name) => {
  const captured = capturedExchange(name);
  it.each(['client', 'server'] as const)('says what the %s said', async (role) => {
    const mine = captured[role];
    const theirs = captured[role === 'client' ? 'server' : 'client'];
    const line = new PlayedLine(theirs);
    const half = role === 'client' ? pingpong.joinPingpong : pingpong.servePingpong;
    const met: pingpong.PingpongAddress[] = [];
    await half(line, pingpong.decodeAddress(mine), async (address) => void met.push(address));
    expect(line.ours.toString('latin1')).toBe(mine.toString('latin1'));
    expect(line.isExhausted).toBe(true);
    expect(met).toEqual([pingpong.decodeAddress(theirs)]);
  });
});

describe('a perftest server', () => {
  const { client } = capturedExchange('tool_send_bw');
  const serve = (bytes: Buffer) =>
    perftest.runPerftest(new PlayedLine(bytes), 'server', {
      mtuBytes: 4096,
      address: addressIn(client),
      isTwoSided: true,
      report: perftest.noReport,
      connect: async () => {},
      run: async () => {},
    });
  const changed = (at: number, text: string) => {
    const bytes = Buffer.from(client);
    bytes.write(text, at, 'latin1');
    return bytes;
  };

  it.each([
    ['a version before this exchange', changed(0, '5.60'), /version 5\.60/],
    ['no version at all', changed(0, 'what'), /version what/],
    ['an MTU that is none', changed(24, '9'), /path MTU 9/],
    ['an address that is none', changed(OPENING_BYTES, 'zzzz'), /not a perftest address/],
    ['a client that leaves in the middle', client.subarray(0, 200), /of 108 bytes/],
  ])('refuses %s', async (_, bytes, message) => {
    await expect(serve(bytes)).rejects.toThrow(message);
    await expect(serve(bytes)).rejects.toBeInstanceOf(ExchangeError);
  });

  it('agrees on the smaller path MTU', async () => {
    const exchange = new perftest.PerftestExchange(new PlayedLine(client), 'server');
    expect(await exchange.open(4096)).toBe(1024);
    const other = new perftest.PerftestExchange(new PlayedLine(client), 'server');
    expect(await other.open(256)).toBe(256);
  });
});

describe('addresses', () => {
  const u = (bits: number) => fc.nat({ max: 2 ** bits - 1 });
  const gid = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => Buffer.from(bytes));

  it('of perftest survive their text', () => {
    const address = fc.record({
      lid: u(16),
      outstandingReads: u(16),
      qpn: u(24),
      psn: u(24),
      rkey: u(32),
      address: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      gid,
      srqn: u(32),
    });
    fc.assert(
      fc.property(address, (end) => {
        const bytes = perftest.encodeAddress(end);
        expect(bytes.length).toBe(perftest.ADDRESS_BYTES);
        expect(perftest.decodeAddress(bytes)).toEqual(end);
      }),
    );
  });

  it('of a ping-pong survive their text', () => {
    fc.assert(
      fc.property(fc.record({ lid: u(16), qpn: u(24), psn: u(24), gid }), (end) => {
        const bytes = pingpong.encodeAddress(end);
        expect(bytes.length).toBe(pingpong.ADDRESS_BYTES);
        expect(pingpong.decodeAddress(bytes)).toEqual(end);
      }),
    );
  });

  it('hold an IPv4 address, or say that they do not', () => {
    expect(ipv4Of(gidOf('192.0.2.9'))).toBe('192.0.2.9');
    expect(() => ipv4Of(Buffer.alloc(16))).toThrow(ExchangeError);
  });
});

describe('a line', () => {
  it('puts pieces together, and gives up on a silent tool and on one that left', async () => {
    const server = createServer((socket) => {
      socket.write('ab');
      setTimeout(() => socket.write('cdef'), 20);
      socket.on('data', () => socket.end());
    });
    const port = await new Promise<number>((resolve) => {
      server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port));
    });
    try {
      const line = await connect(port, 200);
      expect(String(await line.read(3))).toBe('abc');
      expect(String(await line.read(3))).toBe('def');
      await expect(line.read(1)).rejects.toThrow(/said nothing for 200 ms/);
      const other = await connect(port, 200);
      other.write(Buffer.from('x'));
      await expect(other.read(100)).rejects.toThrow(/closed the connection/);
      line.close();
    } finally {
      server.close();
    }
    await expect(connect(port, 200)).rejects.toThrow(ExchangeError);
  });

  it('takes one connection, or none when the tool has ended', async () => {
    const listener = await OneConnection.listen();
    const never = new Promise<never>(() => {});
    const [ours, theirs] = await Promise.all([
      listener.accept(never, 200),
      connect(listener.port, 200),
    ]);
    ours.write(Buffer.from('hello'));
    expect(String(await theirs.read(5))).toBe('hello');
    theirs.close();
    const unmet = await OneConnection.listen();
    await expect(unmet.accept(Promise.reject(new Error('ended')), 200)).rejects.toThrow('ended');
  });
});
