/** `faultline gateway` from the command line: what it says, what it refuses, and how it ends. */

import { readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { runHere, start, temporaryFolder, until } from '../harness/fixtures.ts';
import { Client, connectTo } from './fixtures.ts';

/** Serves a unix socket with `onSocket` until the end of the test. */
async function serve(path: string, onSocket: (socket: Socket) => void): Promise<void> {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    onSocket(socket);
  });
  onTestFinished(() => {
    server.close();
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
}

describe('a command line that is refused', () => {
  const cases: readonly [
    what: string,
    argv: readonly string[],
    code: string,
    place: string,
    status: number,
  ][] = [
    ['neither side', [], 'E_USAGE', '--listen', 2],
    ['both sides', ['--listen', 'unix:x', '--connect', 'unix:y'], 'E_USAGE', '--listen', 2],
    ['no address', ['--listen', 'here'], 'E_ADDRESS', 'here', 2],
    ['the whole network', ['--listen', 'tcp:0.0.0.0:7'], 'E_ADDRESS', 'tcp:0.0.0.0:7', 2],
    [
      'a folder that is not there',
      ['--listen', 'unix:/nowhere/x'],
      'E_LISTEN',
      'unix:/nowhere/x',
      2,
    ],
    [
      'a control address that is none',
      ['--listen', 'unix:WIRE', '--control', 'x'],
      'E_ADDRESS',
      'x',
      2,
    ],
    [
      'a MAC of a group',
      ['--listen', 'unix:x', '--mac', '01:00:00:00:00:00'],
      'E_USAGE',
      '--mac',
      2,
    ],
    ['no IPv4 address', ['--listen', 'unix:x', '--ipv4', 'fe80::1'], 'E_USAGE', '--ipv4', 2],
    ['no IPv6 address', ['--listen', 'unix:x', '--ipv6', '192.0.2.1'], 'E_USAGE', '--ipv6', 2],
    ['an MTU of nothing', ['--listen', 'unix:x', '--mtu', '0'], 'E_USAGE', '--mtu', 2],
    ['an MTU beyond jumbo frames', ['--listen', 'unix:x', '--mtu', '9217'], 'E_USAGE', '--mtu', 2],
    ['no profile', ['--listen', 'unix:x', '--profile', 'spek'], 'E_USAGE', '--profile', 2],
    ['no kind of peer', ['--listen', 'unix:x', '--peer', 'mlx5'], 'E_USAGE', '--peer', 2],
    ['no time', ['--listen', 'unix:x', '--duration', '0'], 'E_USAGE', '--duration', 2],
    ['too long a time', ['--listen', 'unix:x', '--duration', '9001'], 'E_USAGE', '--duration', 2],
    [
      'no scenario',
      ['--listen', 'unix:x', '--scenario', 'gatewey'],
      'E_SCENARIO_NOT_FOUND',
      'gatewey',
      2,
    ],
    [
      'a scenario of two hosts',
      ['--listen', 'unix:x', '--scenario', 'one-write'],
      'E_USAGE',
      '--scenario',
      2,
    ],
    [
      'no file to record into',
      ['--listen', 'unix:WIRE', '--record', '/nowhere/r'],
      'E_OUTPUT',
      '/nowhere/r',
      2,
    ],
    [
      'no file to capture into',
      ['--listen', 'unix:WIRE', '--pcap', '/nowhere/p'],
      'E_OUTPUT',
      '/nowhere/p',
      2,
    ],
  ];
  for (const [what, argv, code, place, status] of cases) {
    it(what, async () => {
      const wire = join(temporaryFolder(), 'wire');
      const result = await runHere('gateway', ...argv.map((text) => text.replace('WIRE', wire)));
      const [line] = result.stderr.split('\n').filter((text) => text.includes(' E_'));
      expect(line).toContain(`faultline: ${code} ${place}: `);
      expect(result.status).toBe(status);
      expect(result.stdout).toBe('');
    });
  }
});

describe('a peer', () => {
  it('that is not there', async () => {
    const address = `unix:${join(temporaryFolder(), 'nobody')}`;
    const { status, stderr } = await runHere('gateway', '--connect', address);
    expect(stderr).toContain(`faultline: E_CONNECT ${address}: `);
    expect(status).toBe(3);
  }, 20_000);

  const farewells: readonly [
    what: string,
    say: (socket: Socket) => void,
    code: string,
    part: string,
  ][] = [
    ['that leaves', (socket) => socket.end(), 'E_PEER_LOST', 'between frames'],
    [
      'that leaves inside a frame',
      (socket) => socket.end(Buffer.from([0, 0, 0, 60, 1])),
      'E_PEER_LOST',
      '5 bytes into a frame',
    ],
    [
      'that speaks HTTP',
      (socket) => socket.write('GET / HTTP/1.1\r\n\r\n'),
      'E_PEER_PROTOCOL',
      'is announced',
    ],
  ];
  for (const [what, say, code, part] of farewells) {
    it(`${what} ends a gateway that connected to it`, async () => {
      const path = join(temporaryFolder(), 'wire');
      await serve(path, say);
      const { status, stderr, stdout } = await runHere(
        'gateway',
        '--connect',
        `unix:${path}`,
        '--json',
      );
      expect(stderr).toContain(`faultline: ${code} unix:${path}: `);
      expect(stderr).toContain(part);
      expect(status).toBe(3);
      expect(JSON.parse(stdout)).toMatchObject({ ending: 'failed', error: { code } });
    });
  }

  it('of every strange kind leaves a gateway that listens at work', async () => {
    const folder = temporaryFolder();
    const [wire, control] = [join(folder, 'wire'), join(folder, 'control')];
    const running = runHere(
      'gateway',
      '--listen',
      `unix:${wire}`,
      '--control',
      `unix:${control}`,
      '--json',
      '--duration',
      '30',
    );
    const client = await Client.connect(control);
    const first = await connectTo(wire);
    const closed = (socket: Socket) =>
      new Promise((resolve) =>
        socket
          .resume()
          .once('end', () => socket.end())
          .once('close', resolve),
      );
    await closed(await connectTo(wire));
    first.end(Buffer.from([0, 0, 1]));
    await client.must('sleep', { ms: 20 });
    const junk = await connectTo(wire);
    const gone = closed(junk);
    junk.write(Buffer.alloc(1000, 0xff));
    await gone;
    const last = await connectTo(wire);
    last.write(Buffer.concat([Buffer.from([0, 0, 0, 0]), Buffer.from([0, 0, 0, 3, 1, 2, 3])]));
    const edge = async () => (await client.must('counters')).edge as Record<string, number>;
    for (let i = 0; i < 50 && (await edge()).runts !== 2; i++)
      await client.must('sleep', { ms: 20 });
    expect(await edge()).toEqual({ frames_in: 2, runts: 2 });
    client.say('{"verb":"quit"}');
    const { status, stdout } = await running;
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      ending: 'quit',
      wire: { peers_connected: 3, peers_refused: 1, peers_expelled: 1, frames_received: 2 },
      error: null,
    });
  });
});

describe('a gateway', () => {
  it('ends when its time is up, with a report for people', async () => {
    const wire = join(temporaryFolder(), 'wire');
    const { status, stdout, stderr } = await runHere(
      'gateway',
      '--listen',
      `unix:${wire}`,
      '--duration',
      '0.1',
    );
    expect(status).toBe(0);
    expect(stderr).toContain(`listening on unix:${wire}`);
    expect(stdout).toContain('ended by duration');
    expect(stdout).toMatch(/^digest {4}[0-9a-f]{16}$/m);
  });

  it('writes down what comes in, and runs again from that', async () => {
    const folder = temporaryFolder();
    const at = (name: string) => join(folder, name);
    const unix = (name: string) => `unix:${at(name)}`;
    const common = ['--json', '--duration', '30', '--mtu', '4200'];
    const one = start(
      folder,
      'gateway',
      '--listen',
      unix('wire'),
      '--control',
      unix('c1'),
      '--record',
      'one.jsonl',
      '--pcap',
      'one.pcapng',
      ...common,
    );
    const a = await Client.connect(at('c1'));
    const two = start(
      folder,
      'gateway',
      '--connect',
      unix('wire'),
      '--control',
      unix('c2'),
      '--mac',
      '02:00:00:00:00:08',
      '--ipv4',
      '192.0.2.8',
      '--record',
      'two.jsonl',
      '--seed',
      '5',
      ...common,
    );
    const b = await Client.connect(at('c2'));
    const ours = await a.must('open', { psn: 1 });
    const theirs = await b.must('open', { psn: 2, odp: 1 });
    await a.must('connect', { qpn: theirs.qpn, psn: 2, gid: '192.0.2.8' });
    await b.must('connect', { qpn: ours.qpn, psn: 1, gid: '192.0.2.9' });
    const [there] = theirs.mrs as { addr: number; rkey: number }[];
    await a.must('fill', { len: 9000, seed: 1 });
    await a.must('post', { op: 'write', len: 9000, raddr: there?.addr, rkey: there?.rkey });
    await a.must('wait', { ms: 10_000 });
    await b.must('check', { len: 9000, seed: 1 });
    for (const client of [a, b]) client.say('{"verb":"quit"}');
    for (const [running, file] of [
      [one, 'one.jsonl'],
      [two, 'two.jsonl'],
    ] as const) {
      const { status, stdout } = await running.done;
      expect(status).toBe(0);
      const { digest, seed } = JSON.parse(stdout) as { digest: string; seed: number };
      const rerun = ['run', 'gateway', '--arrivals', at(file), '--out', at('out')];
      const again = await runHere(...rerun, '--pcap', '--json');
      expect(again.status).toBe(0);
      const summary = JSON.parse(again.stdout) as {
        seed: number;
        transport: string;
        modes: { pinned: { digest: string; complete: boolean } };
      };
      expect(summary).toMatchObject({ seed, transport: 'arrivals' });
      expect(summary.modes.pinned).toMatchObject({ digest, complete: true });
      if (file === 'one.jsonl') {
        expect(readFileSync(at('out/pinned.pcapng')).equals(readFileSync(at('one.pcapng')))).toBe(
          true,
        );
      }
    }
    const decoded = await runHere('decode', at('one.pcapng'), '--strict');
    expect(decoded.status).toBe(0);
    expect(decoded.stdout).toContain('RC RDMA Write First');
    expect(decoded.stdout).toContain('ARP who has 192.0.2.8? Tell 192.0.2.9');
  });

  it('says what it knows when it is interrupted', async () => {
    const folder = temporaryFolder();
    const running = start(
      folder,
      'gateway',
      '--listen',
      `unix:${join(folder, 'wire')}`,
      '--record',
      'r.jsonl',
      '--json',
    );
    await until(() => running.stderr().includes('listening'));
    running.process.kill('SIGTERM');
    const { status, stdout, stderr } = await running.done;
    expect(status).toBe(130);
    expect(stderr).toContain('faultline: interrupted');
    expect(JSON.parse(stdout)).toMatchObject({ ending: 'failed', error: { code: 'interrupted' } });
    expect(readFileSync(join(folder, 'r.jsonl'), 'utf8')).toMatch(/"end":true\}\n$/);
  });
});

describe('recorded arrivals', () => {
  const head = JSON.stringify({
    faultline: 'arrivals',
    version: 1,
    scenario: 'gateway',
    scenario_hash: 'HASH',
    setup: {
      seed: 1,
      mode: 'pinned',
      mac: '02:00:00:00:00:09',
      ipv4: '192.0.2.9',
      mtu: 1500,
      peer: 'spec',
    },
  });
  const cases: readonly [what: string, lines: readonly string[], line: number][] = [
    ['nothing', [], 1],
    ['something else', ['pinned,odp'], 1],
    ['another version', [head.replace('"version":1', '"version":2')], 1],
    ['another scenario', [head.replace('HASH', '0')], 1],
    ['an address that is none', [head.replace('192.0.2.9', 'nine')], 1],
    ['a line that is no JSON', [head, '{'], 2],
    ['an input of no kind', [head, '{"t":5}'], 2],
    ['a frame that is no base64', [head, '{"t":5,"frame":"?"}'], 2],
    ['no time', [head, '{"t":0.5,"frame":"AAAA"}'], 2],
    ['time that stands still', [head, '{"t":5,"frame":"AAAA"}', '{"t":5,"frame":"AAAA"}'], 3],
    ['time that runs back', [head, '{"t":5,"frame":"AAAA"}', '{"t":4,"end":true}'], 3],
  ];
  for (const [what, lines, line] of cases) {
    it(`of ${what} are refused`, async () => {
      const folder = temporaryFolder();
      const file = join(folder, 'arrivals.jsonl');
      const hash = await hashOfGateway();
      writeFileSync(file, lines.map((text) => `${text.replace('HASH', hash)}\n`).join(''));
      const { status, stderr } = await runHere(
        'run',
        'gateway',
        '--arrivals',
        file,
        '--out',
        join(folder, 'out'),
      );
      expect(stderr).toContain(`faultline: E_ARRIVALS_INVALID ${file}:${line}: `);
      expect(status).toBe(2);
    });
  }

  it('that are not there are refused', async () => {
    const { status, stderr } = await runHere('run', 'gateway', '--arrivals', '/nowhere/a');
    expect(stderr).toContain('faultline: E_ARRIVALS_INVALID /nowhere/a: cannot be read: ENOENT');
    expect(status).toBe(2);
  });

  it('without their end are run as far as they go', async () => {
    const folder = temporaryFolder();
    const file = join(folder, 'arrivals.jsonl');
    writeFileSync(file, `${head.replace('HASH', await hashOfGateway())}\n{"t":5,"frame":"AAAA"}\n`);
    const { status } = await runHere(
      'run',
      'gateway',
      '--arrivals',
      file,
      '--out',
      join(folder, 'out'),
    );
    expect(status).toBe(0);
  });
});

let hash: Promise<string> | undefined;

/** The hash of the scenario 'gateway', as a recording of it has it. */
function hashOfGateway(): Promise<string> {
  hash ??= (async () => {
    const folder = temporaryFolder();
    const wire = `unix:${join(folder, 'wire')}`;
    const record = join(folder, 'r.jsonl');
    await runHere('gateway', '--listen', wire, '--duration', '0.01', '--record', record);
    const [first = ''] = readFileSync(record, 'utf8').split('\n');
    return (JSON.parse(first) as { scenario_hash: string }).scenario_hash;
  })();
  return hash;
}
