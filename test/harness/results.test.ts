/** What is written, and what is not: folders that cannot be made, modes that fail, runs that never began. */
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { compare } from '../../harness/commands.ts';
import { prepareOutput } from '../../harness/stats/output.ts';

const common = { seed: 1, peerTimeout: 5_000, transport: 'inproc' } as const;
const folder = mkdtempSync(join(tmpdir(), 'faultline-results-'));

describe('results', () => {
  it.runIf(existsSync('/proc'))('a folder below /proc is refused and does not hang', async () => {
    await expect(prepareOutput('/proc/faultline/none')).rejects.toMatchObject({ code: 'E_OUTPUT' });
  });

  it('a folder is made with its parents', async () => {
    await prepareOutput(join(folder, 'a', 'b c'));
    expect(existsSync(join(folder, 'a', 'b c'))).toBe(true);
  });

  it('a mode that fails does not keep the other from running', async () => {
    const script = join(folder, 'memlock.ts');
    writeFileSync(
      script,
      `import { host, region, scenario, write } from 'faultline';
      const a = host('a', { memlock: '64KiB' });
      const b = host('b');
      const source = region(a, 'source', '1MiB', { prefault: true });
      const target = region(b, 'target', '1MiB');
      export const s = scenario('memlock', 'More than may be locked', [
        write(source, target, { size: '64KiB', count: 4 }),
      ]);`,
    );
    const out = join(folder, 'memlock');
    const quiet = [process.stdout, process.stderr].map((stream) =>
      vi.spyOn(stream, 'write').mockReturnValue(true),
    );
    const status = await compare(script, { ...common, modes: ['pinned', 'odp'], out });
    for (const spy of quiet) spy.mockRestore();
    expect(status).toBe(1);
    const { modes } = JSON.parse(readFileSync(join(out, 'summary.json'), 'utf8'));
    expect(modes.pinned.complete).toBe(false);
    expect(modes.odp).toMatchObject({ complete: true, data_verified: true });
  });
});
