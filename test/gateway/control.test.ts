/** The control socket of a gateway at work: junk, several clients, and clients that go. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CONTROL_LINE_BYTES } from '../../harness/gateway/control-protocol.ts';
import { temporaryFolder } from '../harness/fixtures.ts';
import { Client, connectTo, startGateway } from './fixtures.ts';

function started() {
  const folder = temporaryFolder();
  const control = join(folder, 'control');
  const wire = `unix:${join(folder, 'wire')}`;
  return { control, ...startGateway({ listen: wire, control: `unix:${control}` }) };
}

describe('a control socket', () => {
  it('answers junk with an error, and goes on', async () => {
    const { control } = started();
    const client = await Client.connect(control);
    for (const line of ['hello', '{"id":3}', '{"id":4,"verb":"open","psn":"x"}', '"\u0000"']) {
      client.say(line);
      const answer = await client.next();
      expect(answer.error?.code).toBe('EINVAL');
    }
    client.say('');
    expect(await client.ask('info', { id: 'five' })).toMatchObject({ id: 'five', mtu: 4096 });
  });

  it('says what cannot be done, by errno', async () => {
    const { control } = started();
    const client = await Client.connect(control);
    const cases: readonly [verb: string, fields: object, code: string][] = [
      ['connect', { gid: '192.0.2.8' }, 'ENOENT'],
      ['open', { qp: 3 }, ''],
      ['open', { qp: 3 }, 'EEXIST'],
      ['open', { qp: 4, srq: 1 }, 'ENOENT'],
      ['connect', { qp: 3, gid: '224.0.0.1' }, 'EHOSTUNREACH'],
      ['rts', { qp: 3 }, 'EINVAL'],
      ['modify', { qp: 3, state: 'reset' }, ''],
      ['connect', { qp: 3, gid: '192.0.2.9' }, 'EHOSTUNREACH'],
      ['modify', { qp: 3, state: 'reset' }, ''],
      ['post', { qp: 3, mr: 3, op: 'send', len: 8 }, 'EINVAL'],
      ['init', { qp: 3 }, ''],
      ['rtr', { qp: 3, gid: '192.0.2.8' }, ''],
      ['rts', { qp: 3 }, ''],
      ['connect', { qp: 3, gid: '192.0.2.8' }, 'EINVAL'],
      ['post', { qp: 3, op: 'send', len: 8 }, 'ENOENT'],
      ['post', { qp: 3, mr: 3, op: 'bind', mw: 1 }, 'ENOENT'],
      ['fill', { mr: 3, off: 2 ** 20, len: 1 }, 'ERANGE'],
      ['fill', { mr: 3, len: 100, seed: 1 }, ''],
      ['check', { mr: 3, len: 100, seed: 2 }, 'EIO'],
      ['mr', { mr: 3 }, 'EEXIST'],
      ['dereg', { mr: 9 }, 'ENOENT'],
      ['advise', { mr: 3, len: 10 }, 'EINVAL'],
      ['recv', { qp: 3, srq: 7 }, 'ENOENT'],
      ['wait', { qp: 3, ms: 10 }, 'ETIMEDOUT'],
      ['mr', { mr: 9, len: 2 ** 30 }, 'ENOMEM'],
    ];
    for (const [verb, fields, code] of cases) {
      const answer = await client.ask(verb, fields as Record<string, unknown>);
      expect([verb, JSON.stringify(fields), answer.error?.code ?? '']).toEqual([
        verb,
        JSON.stringify(fields),
        code,
      ]);
    }
  });

  it('serves two clients at once, each with numbers of its own', async () => {
    const { control } = started();
    const [one, two] = [await Client.connect(control), await Client.connect(control)];
    const [first, second] = [await one.must('open'), await two.must('open')];
    expect(first.qpn).not.toBe(second.qpn);
    expect(first.mrs).not.toEqual(second.mrs);
    // One waits for what never comes; the other does not notice.
    one.say('{"verb":"expect","ms":1000}');
    const startMs = performance.now();
    await two.must('fill', { len: 1000, seed: 4 });
    await two.must('check', { len: 1000, seed: 4 });
    expect(performance.now() - startMs).toBeLessThan(900);
    expect((await two.must('info')).mrs).toEqual(second.mrs);
    expect(await one.next()).toMatchObject({ completions: [] });
    expect((await one.ask('check', { len: 1000, seed: 4 })).error?.code).toBe('EIO');
  });

  it('takes apart what a client leaves behind, also in the middle of a wait', async () => {
    const { control, done } = started();
    const one = await Client.connect(control);
    await one.must('open');
    await one.must('mw');
    await one.must('srq');
    one.say('{"verb":"wait","ms":600000}');
    one.socket.destroy();
    const two = await Client.connect(control);
    const { qpn } = await two.must('open');
    expect(qpn).toBeGreaterThan(0);
    // The gateway learns of it when it next looks.
    await two.must('sleep', { ms: 700 });
    await two.must('quit');
    const { reports, error } = await done;
    expect(error).toBeUndefined();
    const regions = reports.find(({ host }) => host)?.host?.regions ?? [];
    expect(regions.map(({ registered }) => registered)).toEqual([false, true]);
  });

  it('answers a client that has said all and closed its side', async () => {
    const { control } = started();
    const client = await Client.connect(control);
    client.socket.end(
      '{"id":1,"verb":"open"}\n{"id":2,"verb":"fill","len":9}\n{"id":3,"verb":"info"}',
    );
    expect([await client.next(), await client.next(), await client.next()]).toMatchObject([
      { id: 1 },
      { id: 2 },
      { id: 3 },
    ]);
    await client.ended;
  });

  it('sends a client away whose line has no end', async () => {
    const { control } = started();
    const client = await Client.connect(control);
    client.socket.write('x'.repeat(CONTROL_LINE_BYTES + 2));
    expect((await client.next()).error?.message).toContain('a line of more than');
    await client.ended;
    const other = await Client.connect(control);
    await other.must('info');
  });

  it('has an end of clients', async () => {
    const { control } = started();
    const clients = [];
    for (let i = 0; i < 16; i++) clients.push(await connectTo(control));
    const late = await Client.connect(control);
    expect((await late.next()).error?.code).toBe('EBUSY');
    await late.ended;
    clients[0]?.destroy();
    await new Promise((resolve) => setTimeout(resolve, 50));
    await (await Client.connect(control)).must('info');
  });
});
