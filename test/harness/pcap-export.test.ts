/** `--pcap`: what is in the capture of a run, and what others make of it. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, type TestContext } from 'vitest';
import {
  decodeNative,
  decodeRoce,
  ERF_BYTES,
  FramePool,
  LINK_ERF,
  LINK_ETHERNET,
  NativeHeader,
  RoceHeader,
  readCapture,
} from '../../transport/index.ts';
import { icrcChecker } from '../captures/captures.ts';
import { filesIn, runHere, temporaryFolder } from './fixtures.ts';

/** Every operation that the scenario language had from the first, over a link that loses packets. */
const script = (linkLayer: string): string => `
import { gbps, host, kib, link, percent, queuePair, read, region, scenario, us, write } from 'faultline';
const a = host('a');
const b = host('b');
const qp = queuePair('qp', a, b);
const source = region('source', a, kib(256), { prefault: true });
const target = region('target', b, kib(256));
export default scenario('case', {
  hosts: [a, b],
  links: [link(a, b, { rate: gbps(100), latency: us(1), loss: percent(1), linkLayer: '${linkLayer}' })],
  queuePairs: [qp],
  regions: [source, target],
  operations: [
    write(a, { queuePair: qp, source, target, size: kib(64), count: 8 }),
    read(a, { queuePair: qp, into: source, from: target, size: kib(64), count: 2 }),
  ],
});
`;

interface Exported {
  readonly file: string;
  readonly frames: number;
  readonly counters: Record<string, number>;
}

/** Runs a scenario of ours and returns what it left. */
async function exported(linkLayer: 'InfiniBand' | 'Ethernet'): Promise<Exported> {
  const folder = temporaryFolder();
  const file = join(folder, 'case.ts');
  writeFileSync(file, script(linkLayer));
  const out = join(folder, 'out');
  const argv = ['run', file, '--mode', 'odp', '--transport', 'inproc', '--pcap', '--out', out];
  const { status, stderr } = await runHere(...argv);
  expect([status, stderr]).toEqual([0, expect.any(String)]);
  const counters: Record<string, number> = {};
  const [header = '', ...rows] = readFileSync(join(out, 'counters.csv'), 'utf8').trim().split('\n');
  expect(header).toContain('value');
  for (const row of rows) {
    const cells = row.split(',');
    const name = cells.find((cell) => /^[a-z]+_[a-z_]+$/.test(cell)) ?? '';
    counters[name] = (counters[name] ?? 0) + Number(cells.at(-1));
  }
  const capture = join(out, 'odp.pcapng');
  const frames = [...readCapture(readFileSync(capture), capture)].length;
  return { file: capture, frames, counters };
}

/** What tshark makes of a capture: a line for each packet, or undefined where it is not installed. */
function tshark(context: TestContext, file: string, ...args: readonly string[]): string {
  try {
    const options = { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] } as const;
    return execFileSync('tshark', ['-r', file, ...args], { ...options, maxBuffer: 1 << 28 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    context.skip('tshark is not installed');
    throw error;
  }
}

describe.each([
  ['InfiniBand', LINK_ERF],
  ['Ethernet', LINK_ETHERNET],
] as const)('a capture of %s', (linkLayer, linkType) => {
  it('has every packet that was sent, in the order of time, with a right ICRC', async () => {
    const { file, counters } = await exported(linkLayer);
    const pool = new FramePool(undefined, 8, 8);
    let lastNs = 0;
    let packets = 0;
    const ports = new Set<string>();
    for (const frame of readCapture(readFileSync(file), file)) {
      expect(frame.linkType).toBe(linkType);
      const timeNs = frame.seconds * 1e9 + frame.nanoseconds;
      expect(timeNs).toBeGreaterThanOrEqual(lastNs);
      lastNs = timeNs;
      ports.add(frame.interfaceName);
      packets++;
      const { bytes } = frame;
      if (linkLayer === 'Ethernet') {
        const header = new RoceHeader();
        pool.release(decodeRoce(pool, bytes, 0, bytes.length, header));
        expect([header.icrcError, header.checksumError]).toEqual([0, 0]);
        const from = header.source[3];
        expect([...header.sourceMac]).toEqual([2, 0, 0, 0, 0, from]);
        expect(header.sourceText).toBe(`192.0.2.${from}`);
        expect(frame.interfaceName).toBe(from === 1 ? 'a.hca' : 'b.hca');
      } else {
        const header = new NativeHeader();
        pool.release(decodeNative(pool, bytes, ERF_BYTES, bytes.length, header));
        expect([header.icrcError, header.vcrcError]).toEqual([0, 0]);
        expect(frame.interfaceName).toBe(header.sourceLid === 1 ? 'a.hca' : 'b.hca');
      }
    }
    expect([...ports].sort()).toEqual(['a.hca', 'b.hca']);
    expect(packets).toBe(counters.port_xmit_packets);
    expect(counters.wire_drops).toBeGreaterThan(0);
  });

  it('is dissected by tshark without a malformed packet', async (context) => {
    const { file, frames } = await exported(linkLayer);
    const lines = tshark(context, file).trimEnd().split('\n');
    expect(lines).toHaveLength(frames);
    expect(tshark(context, file, '-Y', '_ws.malformed || _ws.expert.severity == "Error"')).toBe('');
    const fields = ['-T', 'fields', '-e', 'infiniband.bth.opcode', '-e', 'infiniband.bth.psn'];
    const seen = tshark(context, file, ...fields, '-e', 'frame.interface_name')
      .trimEnd()
      .split('\n');
    const { stdout } = await runHere('decode', file, '--json');
    const ours = JSON.parse(stdout).frames as readonly {
      readonly opcode: number;
      readonly psn: number;
      readonly source: string;
    }[];
    expect(seen).toEqual(
      ours.map(({ opcode, psn, source }) => {
        return `${opcode}\t${psn}\t${source.endsWith('1') ? 'a.hca' : 'b.hca'}`;
      }),
    );
  });

  it('passes an independent check of its ICRCs', async (context) => {
    const { file, frames } = await exported(linkLayer);
    let text = '';
    try {
      text = execFileSync('python3', [icrcChecker, file], { encoding: 'utf8' });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      context.skip('python3 is not installed');
    }
    expect(text).toContain(`: ${frames} right, 0 right by rxe-flush-icrc, 0 wrong`);
  });
});

describe('--pcap', () => {
  it('leaves the same capture in every placement, and no part of it', async () => {
    const captures: Buffer[] = [];
    for (const placement of [['inproc'], ['ws'], ['ws', '--split']]) {
      const out = join(temporaryFolder(), 'out');
      const argv = ['run', 'one-write', '--pcap', '--out', out, '--transport', ...placement];
      expect((await runHere(...argv)).status).toBe(0);
      captures.push(readFileSync(join(out, 'pinned.pcapng')));
      expect(filesIn(out).filter((name) => /part|tmp/.test(name))).toEqual([]);
    }
    expect(captures[1]?.equals(captures[0] as Buffer)).toBe(true);
    expect(captures[2]?.equals(captures[0] as Buffer)).toBe(true);
  });

  it('changes nothing else, and leaves nothing where it is not asked for', async () => {
    const digests: unknown[] = [];
    for (const flags of [[], ['--pcap']]) {
      const out = join(temporaryFolder(), 'out');
      const argv = ['compare', 'one-write', '--transport', 'inproc', '--out', out, ...flags];
      await runHere(...argv);
      const { modes } = JSON.parse(readFileSync(join(out, 'summary.json'), 'utf8'));
      digests.push([modes.pinned.digest, modes.odp.digest]);
      expect(existsSync(join(out, 'odp.pcapng'))).toBe(flags.length > 0);
    }
    expect(digests[1]).toEqual(digests[0]);
  });

  it('does not go with a recorded gateway session', async () => {
    const { status, stderr } = await runHere('run', 'gateway', '--arrivals', 'x', '--pcap');
    expect([status, stderr]).toEqual([2, expect.stringContaining('E_USAGE --pcap')]);
  });
});
