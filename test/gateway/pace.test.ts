/** Falling behind real time is counted. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { LAG_LIMIT_PS, Pace } from '../../harness/gateway/pace.ts';
import { MS } from '../../transport/index.ts';
import { temporaryFolder } from '../harness/fixtures.ts';
import { Client, startGateway } from './fixtures.ts';

describe('a pace', () => {
  it('counts each time that it falls behind, once, and knows the furthest', () => {
    let nowMs = 1000;
    const pace = new Pace(() => nowMs);
    expect(pace.wallPs).toBe(0);
    nowMs += 1.5;
    expect(pace.wallPs).toBe(1.5 * MS);
    expect(pace.note(MS, 2 * MS)).toBe(false);
    expect(pace.note(3 * MS, 3 * MS + LAG_LIMIT_PS)).toBe(false);
    expect(pace.report()).toEqual({ max_ms: 10, times: 0 });
    // Behind, still behind, and caught up.
    expect(pace.note(3 * MS, 33 * MS)).toBe(true);
    expect(pace.note(4 * MS, 44 * MS)).toBe(false);
    expect(pace.note(50 * MS, 45 * MS)).toBe(false);
    expect(pace.report()).toEqual({ max_ms: 40, times: 1 });
    // Behind again, but not as far: no news.
    expect(pace.note(50 * MS, 65 * MS)).toBe(false);
    expect(pace.report()).toEqual({ max_ms: 40, times: 2 });
    // Nothing is due: nothing is late.
    expect(pace.note(Number.POSITIVE_INFINITY, 99 * MS)).toBe(false);
    expect(pace.report()).toEqual({ max_ms: 40, times: 2 });
  });
});

describe('a gateway whose process is held up', () => {
  it('says so, and reports it', async () => {
    const folder = temporaryFolder();
    const control = join(folder, 'control');
    const { done, said } = startGateway({
      listen: `unix:${join(folder, 'wire')}`,
      control: `unix:${control}`,
    });
    const client = await Client.connect(control);
    await client.must('info');
    // An alarm of the simulated host is due in 20 ms; nobody looks at it for 100.
    client.say('{"verb":"sleep","ms":20}');
    await new Promise((resolve) => setTimeout(resolve, 5));
    const untilMs = performance.now() + 100;
    while (performance.now() < untilMs);
    await client.next();
    await client.must('quit');
    const { lag, ending } = await done;
    expect(ending).toBe('quit');
    expect(lag.max_ms).toBeGreaterThan(50);
    expect(lag.times).toBeGreaterThan(0);
    expect(said.some((line) => line.includes('ms behind'))).toBe(true);
  });
});
