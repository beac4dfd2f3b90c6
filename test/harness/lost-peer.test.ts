/** One side is killed, talks rubbish, or runs something else: the other ends promptly and says so. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { connect } from '../../transport/index.ts';
import { filesIn, type Running, start, temporaryFolder, until } from './fixtures.ts';

/** Long enough to be interrupted in the middle. */
const long = 'qe-alltoall';

function side(folder: string, role: string, ...flags: string[]): Running {
  return start(folder, 'host', '--role', role, ...flags, '--out', join(folder, role));
}

function summaryIn(folder: string) {
  return JSON.parse(readFileSync(join(folder, 'summary.json'), 'utf8')).modes.pinned;
}

describe('a lost peer', () => {
  it('killed mid-run: the survivor ends within 2 s with what it knows', async () => {
    const folder = temporaryFolder();
    const url = `ws+unix:${folder}/bus`;
    const a = side(folder, 'a', '--listen', url, long);
    const b = side(folder, 'b', '--connect', url, long);
    await until(() => /[1-9]\d* of .* operations/.test(a.stderr()));
    b.process.kill('SIGKILL');
    const killedMs = performance.now();
    const { status, stderr } = await a.done;
    // Promised within 2 s on an idle machine; a loaded one gets more.
    expect(performance.now() - killedMs).toBeLessThan(10_000);
    expect(stderr).toContain('faultline: E_PEER_LOST');
    expect(status).toBe(3);
    const survivor = join(folder, 'a');
    expect(summaryIn(survivor)).toMatchObject({ complete: false, data_verified: false });
    expect(summaryIn(survivor).operations).toBeGreaterThan(0);
    expect(filesIn(survivor).filter((file) => file.endsWith('.tmp'))).toEqual([]);
  });

  it('a killed host process ends the coordinator and its sibling', async () => {
    const folder = temporaryFolder();
    const compare = start(folder, 'compare', long, '--out', folder);
    await until(() => /[1-9]\d* of .* operations/.test(compare.stderr()));
    const children = readFileSync(
      `/proc/${compare.process.pid}/task/${compare.process.pid}/children`,
      'utf8',
    );
    const [victim, ...others] = children.trim().split(' ').map(Number);
    process.kill(victim as number, 'SIGKILL');
    const { status, stderr } = await compare.done;
    expect(stderr).toContain('faultline: E_PEER_LOST');
    expect(stderr).toContain('SIGKILL');
    expect(status).toBe(3);
    expect(summaryIn(folder).complete).toBe(false);
    for (const pid of others) expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  });

  it('Ctrl-C: status 130, partial results, no process left', async () => {
    const folder = temporaryFolder();
    const compare = start(folder, 'compare', long, '--out', folder);
    await until(() => /[1-9]\d* of .* operations/.test(compare.stderr()));
    compare.process.kill('SIGINT');
    const { status, stderr } = await compare.done;
    expect(stderr).toContain('faultline: interrupted');
    expect(status).toBe(130);
    expect(summaryIn(folder).complete).toBe(false);
  });

  it('random bytes: E_PEER_PROTOCOL', async () => {
    const folder = temporaryFolder();
    const url = `ws+unix:${folder}/bus`;
    const a = side(folder, 'a', '--listen', url, 'one-write');
    const stranger = await connect(url);
    stranger.send(Uint8Array.of(7, 1, 2, 3, 250));
    const { status, stderr } = await a.done;
    expect(stderr).toContain('faultline: E_PEER_PROTOCOL');
    expect(status).toBe(3);
  });

  it.each([
    { field: 'scenario', other: ['read-fault'] },
    { field: 'seed', other: ['one-write', '--seed', '2'] },
    { field: 'mode', other: ['one-write', '--mode', 'odp'] },
    { field: 'role', other: ['one-write'], role: 'a' },
  ])('another $field: E_HANDSHAKE on both sides', async ({ field, other, role = 'b' }) => {
    const folder = temporaryFolder();
    const url = `ws+unix:${folder}/bus`;
    const a = side(folder, 'a', '--listen', url, 'one-write');
    const b = start(
      folder,
      'host',
      '--role',
      role,
      '--connect',
      url,
      '--out',
      `${folder}/b`,
      ...other,
    );
    for (const { stderr, status } of await Promise.all([a.done, b.done])) {
      expect(stderr).toMatch(/faultline: (E_HANDSHAKE|E_PEER_FAILED .*E_HANDSHAKE)/);
      expect(stderr).toContain(field);
      expect([2, 3]).toContain(status);
    }
  });

  it('silence: E_PEER_SILENT after --peer-timeout', async () => {
    const folder = temporaryFolder();
    const url = `ws+unix:${folder}/bus`;
    const a = side(folder, 'a', '--listen', url, '--peer-timeout', '0.3', 'one-write');
    await connect(url);
    const { status, stderr } = await a.done;
    expect(stderr).toContain('faultline: E_PEER_SILENT');
    expect(status).toBe(3);
  });

  it('another token: E_REFUSED', async () => {
    const folder = temporaryFolder();
    const url = `ws+unix:${folder}/bus`;
    const a = side(folder, 'a', '--listen', url, '--token', 'secret', 'one-write');
    await until(() => a.stderr().includes('listens'));
    const b = await side(folder, 'b', '--connect', url, '--token', 'guess', 'one-write').done;
    expect(b.stderr).toContain('faultline: E_REFUSED');
    expect(b.status).toBe(3);
  });

  it('a scenario of ten lines from a script runs on two sides', async () => {
    const folder = temporaryFolder();
    const file = join(folder, 'mine.ts');
    writeFileSync(
      file,
      `import { host, region, remap, scenario, write } from 'faultline';

const source = region(host('left'), 'source', '1MiB', { prefault: true });
const target = region(host('right'), 'target', '1MiB');

export const mine = scenario('mine', 'Writes around a remapped buffer', [
  write(source, target, { size: '64KiB', count: 16 }),
  remap(target, { at: '200us' }),
]);
`,
    );
    const url = `ws+unix:${folder}/bus`;
    const left = side(folder, 'left', '--listen', url, '--mode', 'odp', file);
    const right = side(folder, 'right', '--connect', url, '--mode', 'odp', file);
    const results = await Promise.all([left.done, right.done]);
    for (const { status, stderr } of results)
      expect([status, stderr]).toEqual([0, expect.any(String)]);
    const [x, y] = ['left', 'right'].map((role) =>
      JSON.parse(readFileSync(join(folder, role, 'summary.json'), 'utf8')),
    );
    expect(x.modes.odp).toMatchObject({ operations: 16, data_verified: true });
    expect(x.modes.odp.digest).toBe(y.modes.odp.digest);
  });
});
