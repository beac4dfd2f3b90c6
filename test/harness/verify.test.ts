/** `data_verified` says yes only when bytes were compared, all of them. */
import { describe, expect, it } from 'vitest';
import type { NodeReport } from '../../harness/report.ts';
import { summarize } from '../../harness/stats/summarize.ts';
import { CONTROL_QPN } from '../../harness/workload/layout.ts';
import type { HostReport, MessageEntry } from '../../kernel/index.ts';
import { QPT_RC } from '../../transport/index.ts';

const DATA_QPN = CONTROL_QPN + 1;

const entry = (side: MessageEntry['side'], changes: Partial<MessageEntry> = {}): MessageEntry => ({
  side,
  service: QPT_RC,
  qpn: DATA_QPN,
  lid: 0,
  message: 1,
  bytes: 100,
  hash: 7,
  ...changes,
});

/** What a run with these logs of its two hosts says, when the programs moved `bytes` of data. */
function verified(bytes: number, initiator: MessageEntry[], target: MessageEntry[]): boolean {
  const report = (node: string, messages: MessageEntry[], moved: number): NodeReport => ({
    node,
    digest: '0',
    nowPs: 1,
    pending: false,
    host: { regions: [], messages, atomics: [] } as Partial<HostReport> as HostReport,
    workload: {
      operations: 1,
      planned: 1,
      bytes: moved,
      latenciesPs: [],
      startedPs: 0,
      lastPs: 1,
      finished: true,
      words: { checked: 0, wrong: 0 },
      position: 'done',
    },
  });
  const reports = [report('a.host', initiator, bytes), report('b.host', target, 0)];
  return summarize({ reports, windows: 0, wallSeconds: 0, error: undefined }, 2).data_verified;
}

describe('data_verified', () => {
  const control = { qpn: CONTROL_QPN, bytes: 64 };

  it('is true for a message that both ends saw alike', () => {
    expect(verified(100, [entry('initiator')], [entry('target')])).toBe(true);
  });

  it.each<[string, number, MessageEntry[], MessageEntry[]]>([
    ['another hash', 100, [entry('initiator')], [entry('target', { hash: 8 })]],
    ['fewer bytes', 100, [entry('initiator')], [entry('target', { bytes: 99 })]],
    ['no counterpart', 100, [entry('initiator')], []],
    ['a message nobody sent', 100, [entry('initiator')], [entry('target'), entry('target')]],
    ['no message at all', 100, [], []],
    ['control messages alone', 100, [entry('initiator', control)], [entry('target', control)]],
    ['no operation', 0, [entry('initiator', control)], [entry('target', control)]],
    ['an operation without a hash', 200, [entry('initiator')], [entry('target')]],
  ])('is false for %s', (_what, bytes, initiator, target) => {
    expect(verified(bytes, initiator, target)).toBe(false);
  });
});
