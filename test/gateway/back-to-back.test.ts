/** Two gateways on one wire: every operation, both services of IP, on-demand memory, losses; and again from their recordings. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Recording } from '../../harness/gateway/recording.ts';
import { recordedScenario, replay } from '../../harness/gateway/replay.ts';
import type { GatewaySetup } from '../../harness/gateway/setup.ts';
import { temporaryFolder } from '../harness/fixtures.ts';
import {
  type Answer,
  Client,
  digestOf,
  gatewayScenario,
  type RunningGateway,
  setupOf,
  startGateway,
} from './fixtures.ts';

interface Side {
  readonly client: Client;
  readonly gateway: RunningGateway;
  readonly record: string;
}

interface Opened extends Side {
  readonly open: Answer & {
    readonly qpn: number;
    readonly psn: number;
    readonly gids: { readonly ipv4: string; readonly ipv6: string };
    readonly mrs: readonly { readonly addr: number; readonly rkey: number }[];
  };
}

/** Two gateways, one listening and one connecting, each with a control client. */
async function twoSides(change: Partial<GatewaySetup> = {}): Promise<[Side, Side]> {
  const folder = temporaryFolder();
  const wire = `unix:${join(folder, 'wire')}`;
  const side = async (number: 8 | 9): Promise<Side> => {
    const control = join(folder, `control${number}`);
    const record = join(folder, `record${number}`);
    const gateway = startGateway({
      setup: setupOf(number, change),
      control: `unix:${control}`,
      record,
      ...(number === 9 ? { listen: wire } : { connect: wire }),
    });
    return { client: await Client.connect(control), gateway, record };
  };
  return [await side(9), await side(8)];
}

/** Opens a queue pair on each side and connects the two. */
async function connected(
  [a, b]: [Side, Side],
  fields: Record<string, unknown>,
  version: 4 | 6,
  path: Record<string, unknown> = {},
): Promise<[Opened, Opened]> {
  const openOn = async (side: Side, psn: number): Promise<Opened> => {
    const open = await side.client.must('open', { psn, access: 'lrwagb', ...fields });
    return { ...side, open: open as Opened['open'] };
  };
  const ends: [Opened, Opened] = [await openOn(a, 0xfffff0), await openOn(b, 0xfffffa)];
  for (const [own, other] of [ends, [...ends].reverse() as [Opened, Opened]]) {
    const { qpn, psn, gids } = other.open;
    const gid = version === 4 ? gids.ipv4 : gids.ipv6;
    const { qp = 0 } = fields;
    await own.client.must('connect', { qp, qpn, psn, gid, mtu: 1024, timeout: 15, ...path });
  }
  return ends;
}

/** Every operation of a reliable connection from `a` to `b`, with its data checked. */
async function reliable([a, b]: [Opened, Opened], seed: number): Promise<void> {
  const [mine] = a.open.mrs;
  const [there] = b.open.mrs;
  const ask = a.client;
  const { rkey } = there as { rkey: number };
  const at = (offset: number) => ((there as { addr: number }).addr ?? 0) + offset;
  expect(mine).toBeDefined();
  const wait = { ms: 15_000 };
  await ask.must('fill', { len: 40_000, seed });
  await ask.must('post', { op: 'write', len: 40_000, sges: 3, raddr: at(7), rkey });
  await ask.must('wait', wait);
  await b.client.must('check', { off: 7, len: 40_000, seed });
  await b.client.must('recv', { off: 100_001, len: 9000, n: 4, step: 9000 });
  await ask.must('post', { op: 'send', len: 9000 });
  await ask.must('post', { op: 'sendimm', imm: '0xcafe', len: 0 });
  await ask.must('post', { op: 'writeimm', imm: 5, len: 3000, raddr: at(200_000), rkey });
  await ask.must('post', { op: 'send', len: 100, inline: 1, sol: 1 });
  await ask.must('wait', { n: 4, ...wait });
  const { completions } = await b.client.must('wait', { n: 4, ...wait });
  expect(completions).toMatchObject([
    { op: 'recv', len: 9000 },
    { op: 'recv', len: 0, imm: 0xcafe },
    { op: 'recv_write_imm', len: 3000, imm: 5 },
    { op: 'recv', len: 100 },
  ]);
  await b.client.must('check', { off: 100_001, len: 9000, seed });
  await b.client.must('check', { off: 200_000, len: 3000, seed });
  await ask.must('post', { op: 'read', off: 300_001, len: 39_999, raddr: at(7), rkey });
  await ask.must('post', { op: 'faa', off: 400_000, raddr: at(500_000), rkey, add: '0x100000001' });
  const swap = { cmp: '0x100000001', swap: '0xfedcba9876543210' };
  await ask.must('post', { op: 'cas', off: 400_008, raddr: at(500_000), rkey, ...swap });
  await ask.must('post', { op: 'awrite', off: 400_016, val: 77, raddr: at(500_008), rkey });
  await ask.must('post', { op: 'flush', len: 64, raddr: at(500_000), rkey });
  await ask.must('wait', { n: 5, ...wait });
  await ask.must('check', { off: 300_001, len: 39_999, seed });
  expect(await ask.must('dump', { off: 400_000, len: 16 })).toMatchObject({
    hex: '00000000000000000100000001000000',
  });
  expect(await b.client.must('dump', { off: 500_000, len: 16 })).toMatchObject({
    hex: '1032547698badcfe4d00000000000000',
  });
  const mw = seed;
  await b.client.must('mw', { mw });
  const bound = await b.client.must('post', { op: 'bind', mw, mr: 0, len: 65_536 });
  await b.client.must('wait', wait);
  await ask.must('post', { op: 'write', len: 500, raddr: at(50_000), rkey: bound.rkey });
  await b.client.must('recv', { off: 100_001, len: 100 });
  await ask.must('post', { op: 'sendinv', inv: bound.rkey, len: 50 });
  await ask.must('wait', { n: 2, ...wait });
  expect((await b.client.must('wait', wait)).completions).toMatchObject([{ inv: bound.rkey }]);
  await b.client.must('check', { off: 50_000, len: 500, seed });
}

/** Ends both gateways and runs their recordings again. */
async function endsAsRecorded(sides: [Side, Side]): Promise<void> {
  // What the last ACKs do to the other side is not over when its client is answered.
  for (const { client } of sides) await client.must('sleep', { ms: 30 });
  for (const { client } of sides) client.say('{"verb":"quit"}');
  for (const { gateway, record } of sides) {
    const outcome = await gateway.done;
    expect(outcome.error).toBeUndefined();
    expect(outcome.ending).toBe('quit');
    const recording = await Recording.open(record);
    const scenario = recordedScenario(gatewayScenario(), recording, record);
    const again = await replay(scenario, recording);
    expect(again.error).toBeUndefined();
    const digests = ({ reports }: typeof again) =>
      reports.map(({ node, digest }) => `${node} ${digest}`);
    expect(digests(again)).toEqual(digests(outcome));
    expect(digestOf(again)).toBe(digestOf(outcome));
  }
}

describe('two gateways', () => {
  for (const version of [4, 6] as const) {
    for (const odp of [0, 1]) {
      const memory = odp ? 'on-demand' : 'pinned';
      it(`do every operation both ways over IPv${version} with ${memory} memory`, async () => {
        const sides = await twoSides();
        const [a, b] = await connected(sides, { odp }, version);
        await reliable([a, b], 3);
        await reliable([b, a], 4);
        const { mrs, adapter } = await b.client.must('counters');
        const faults = (mrs as { page_faults: number }[])[0]?.page_faults ?? 0;
        const naks = (adapter as { rnr_naks_sent?: number }).rnr_naks_sent ?? 0;
        if (odp) expect(Math.min(faults, naks)).toBeGreaterThan(0);
        else expect(faults).toBe(0);
        expect(await a.client.must('async')).toMatchObject({ events: [] });
        await endsAsRecorded(sides);
      });
    }
  }

  for (const mtu of [256, 4096]) {
    it(`recover from losses, duplicates and damage at path MTU ${mtu}`, async () => {
      const sides = await twoSides();
      const [a, b] = await connected(sides, {}, 4, { mtu });
      const impairment = { dropPpm: 20_000, duplicatePpm: 20_000, corruptPpm: 5_000 };
      await a.client.must('impair', { ...impairment, reorderPpm: 5_000, reorderUs: 50, seed: mtu });
      await reliable([a, b], 3);
      await reliable([b, a], 4);
      const { edge } = await a.client.must('counters');
      expect((edge as { impaired_drops: number }).impaired_drops).toBeGreaterThan(0);
      await endsAsRecorded(sides);
    });
  }

  it('send datagrams and unreliable messages', async () => {
    const sides = await twoSides();
    for (const [qp, type, version] of [
      [0, 'uc', 4],
      [1, 'uc', 6],
      [2, 'ud', 4],
      [3, 'ud', 6],
    ] as const) {
      const ends = await connected(sides, { qp, type }, version);
      for (const [from, to] of [ends, [...ends].reverse() as [Opened, Opened]]) {
        const grh = type === 'ud' ? 40 : 0;
        await from.client.must('fill', { mr: qp, len: 5000, seed: qp });
        const size = type === 'ud' ? 1000 : 5000;
        await to.client.must('recv', { qp, mr: qp, off: 10_000, len: size + grh });
        await from.client.must('post', { qp, mr: qp, op: 'sendimm', imm: 9, len: size });
        await from.client.must('wait', { qp });
        const { completions } = await to.client.must('wait', { qp });
        expect(completions).toMatchObject([{ len: size + grh, imm: 9 }]);
        if (type === 'ud') {
          expect(completions).toMatchObject([{ grh: true, src: from.open.qpn }]);
        }
        await to.client.must('check', { mr: qp, off: 10_000 + grh, len: size, seed: qp });
      }
    }
    await endsAsRecorded(sides);
  });

  it('share a receive queue, fault again after dontneed, and suspend', async () => {
    const sides = await twoSides();
    for (const { client } of sides) await client.must('srq', { entries: 16 });
    const [a, b] = await connected(sides, { srq: 0, odp: 1 }, 4);
    await b.client.must('recv', { srq: 0, off: 4096, len: 4096, n: 2, step: 4096 });
    await a.client.must('fill', { len: 4096, seed: 6 });
    await a.client.must('post', { op: 'send', len: 4096 });
    await a.client.must('wait', { ms: 10_000 });
    await b.client.must('wait');
    await b.client.must('check', { off: 4096, len: 4096, seed: 6 });
    const faults = async () =>
      ((await b.client.must('counters')).mrs as { page_faults: number }[])[0]?.page_faults ?? 0;
    const before = await faults();
    await b.client.must('dontneed', { off: 4096, len: 4096 });
    expect((await b.client.ask('check', { off: 4096, len: 4096, seed: 6 })).error?.code).toBe(
      'EIO',
    );
    const [there] = b.open.mrs;
    const { addr, rkey } = there as { addr: number; rkey: number };
    await a.client.must('post', { op: 'write', len: 4096, raddr: addr + 4096, rkey });
    await a.client.must('wait', { ms: 10_000 });
    await b.client.must('check', { off: 4096, len: 4096, seed: 6 });
    expect(await faults()).toBeGreaterThan(before);
    b.client.say('{"verb":"suspend","ms":20}');
    await a.client.must('post', { op: 'write', len: 100, raddr: addr, rkey });
    await a.client.must('wait', { ms: 10_000 });
    await b.client.next();
    await b.client.must('check', { len: 100, seed: 6 });
    await endsAsRecorded(sides);
  });

  it('tell each other what is wrong', async () => {
    const sides = await twoSides();
    const [a, b] = await connected(sides, {}, 4);
    const [there] = b.open.mrs;
    const { addr, rkey } = there as { addr: number; rkey: number };
    await a.client.must('post', { op: 'write', len: 8, raddr: addr, rkey: rkey + 1 });
    const { completions } = await a.client.ask('wait');
    expect(completions).toMatchObject([{ status: 10, name: 'IBV_WC_REM_ACCESS_ERR' }]);
    expect(await b.client.must('async', { ms: 50 })).toMatchObject({
      events: [{ event: 'IBV_EVENT_QP_ACCESS_ERR', qp: 0 }],
    });
    expect(await a.client.must('query')).toMatchObject({ state: 6 });
    await a.client.must('modify', { state: 'reset' });
    expect(await a.client.must('query')).toMatchObject({ state: 0 });
    await endsAsRecorded(sides);
  });
});
