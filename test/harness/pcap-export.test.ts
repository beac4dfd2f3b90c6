/** `--pcap`: what is in the capture of a run, and what others make of it. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest';
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
import { runTool } from '../fixtures/external-tool.ts';
import { filesIn, runHere, temporaryFolder } from './fixtures.ts';

/** Packets of every kind, over a link that loses some. */
const script = (linkLayer: string): string => `
import { atomicWrite, compareSwap, fetchAdd, host, link, memoryWindow, queuePair, read, region, scenario, sendImm, sendInv, write, writeImm } from 'faultline';
const a = host('a');
const b = host('b');
const at = (host, name) => region(host, name, '256KiB');
const open = region(b, 'open', '256KiB', { access: ['local-write', 'remote-write', 'mw-bind'] });
const io = queuePair('io', a, b);
const target = memoryWindow('target', open, io, { access: ['remote-write'] });
const ud = queuePair('ud', a, b, { type: 'UD' });
const uc = queuePair('uc', a, b, { type: 'UC' });
export const one = scenario('case', 'packets of every kind', [
  link(a, b, { loss: '1%', linkLayer: '${linkLayer}' }),
  write(at(a, 'w1'), at(b, 'w2'), { size: '64KiB', count: 4 }),
  read(at(b, 'r1'), at(a, 'r2'), { size: '64KiB', count: 2 }),
  fetchAdd(at(a, 'f1'), at(b, 'f2'), { add: 3, count: 8 }),
  compareSwap(at(a, 'c1'), at(b, 'c2'), { compare: 0, swap: 1, count: 4 }),
  atomicWrite(at(a, 'a1'), at(b, 'a2')),
  sendImm(at(a, 's1'), at(b, 's2'), { size: '1001B', count: 8, on: ud }),
  writeImm(at(a, 'u1'), at(b, 'u2'), { size: '9000B', count: 4, on: uc }),
  write(at(a, 'm1'), target, { size: '8KiB', count: 2 }),
  sendInv(at(a, 'i1'), at(b, 'i2'), { invalidates: target, size: '1KiB', count: 2 }),
]);
`;

interface Exported {
  readonly file: string;
  readonly frames: number;
  readonly counters: Record<string, number>;
}

/** Runs a scenario of ours and returns what it left in `folder`. */
async function exported(linkLayer: string, folder: string): Promise<Exported> {
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

/** What tshark makes of a capture: a line for each packet. */
function tshark(context: TestContext, file: string, ...args: readonly string[]): string {
  return runTool(context, 'tshark', ['-r', file, ...args]);
}

describe.each([
  ['InfiniBand', LINK_ERF],
  ['Ethernet', LINK_ETHERNET],
] as const)('a capture of %s', (linkLayer, linkType) => {
  const folder = mkdtempSync(join(tmpdir(), 'faultline-test-'));
  let capture: Exported;
  beforeAll(async () => {
    capture = await exported(linkLayer, folder);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('has every packet that was sent, in the order of time, with a right ICRC', () => {
    const { file, counters } = capture;
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
    const { file, frames } = capture;
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

  it('passes an independent check of its ICRCs', (context) => {
    const { file, frames } = capture;
    const text = runTool(context, 'python3', [icrcChecker, file]);
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
});
