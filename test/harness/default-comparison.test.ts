/** What `npm start` shows: the two modes differ as on-demand paging says they must. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { runHere, temporaryFolder } from './fixtures.ts';

function rowsOf(file: string): Record<string, string>[] {
  const [header, ...lines] = readFileSync(file, 'utf8').trimEnd().split('\n');
  const columns = (header as string).split(',');
  return lines.map((line) =>
    Object.fromEntries(line.split(',').map((cell, i) => [columns[i] as string, cell])),
  );
}

const total = (rows: Record<string, string>[], column: string): number =>
  rows.reduce((sum, row) => sum + Number(row[column]), 0);

describe('the default comparison', () => {
  it('pinned pays at registration, on-demand with faults, and both move every byte', async () => {
    const out = temporaryFolder();
    const { status, stdout } = await runHere('compare', '--transport', 'inproc', '--out', out);
    expect(status).toBe(0);
    expect(stdout).toContain('every byte verified');
    const { modes } = JSON.parse(readFileSync(join(out, 'summary.json'), 'utf8'));
    const { pinned, odp } = modes;
    for (const mode of [pinned, odp]) {
      expect(mode).toMatchObject({ operations: 6217, data_verified: true, complete: true });
    }
    expect(pinned).toMatchObject({ page_faults: 0, page_invalidations: 0, rnr_naks: 0 });
    expect(odp.page_faults).toBeGreaterThan(10_000);
    expect(odp.page_invalidations).toBeGreaterThan(10_000);
    expect(odp.rnr_naks).toBeGreaterThan(100);
    expect(odp.pinned_bytes_peak).toBeLessThan(pinned.pinned_bytes_peak / 100);
    expect(odp.registration_ns).toBeLessThan(pinned.registration_ns / 10);
    expect(odp.latency_ns.p99).toBeGreaterThan(10 * pinned.latency_ns.p99);

    const rows = rowsOf(join(out, 'mr.csv'));
    const [pinnedRows, odpRows] = ['pinned', 'odp'].map((mode) =>
      rows.filter((row) => row.mode === mode),
    ) as [typeof rows, typeof rows];
    expect(pinnedRows).toHaveLength(pinned.registrations);
    expect(total(odpRows, 'page_faults')).toBe(odp.page_faults);
    expect(total(odpRows, 'page_invalidations')).toBe(odp.page_invalidations);
    expect(total(odpRows, 'rnr_naks')).toBe(odp.rnr_naks);
    expect(total(odpRows, 'stall_ns')).toBeGreaterThan(0);
    expect(total(odpRows, 'bytes_retransmitted')).toBeGreaterThan(0);
    // Only the control regions are pinned on demand, one a host.
    expect(odpRows.filter((row) => row.registration === 'pinned')).toHaveLength(2);
  });
});
