/** `data_verified` says yes only when bytes were compared, all of them. */
import { describe, expect, it } from 'vitest';
import type { NodeReport } from '../../harness/report.ts';
import { summarize } from '../../harness/stats/summarize.ts';
import { CONTROL_QPN } from '../../harness/workload/layout.ts';
import type { AtomicEntry, HostReport, MessageEntry } from '../../kernel/index.ts';
import { ATOMIC_ADD, QPT_RC, QPT_UD } from '../../transport/index.ts';

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

const atomic = (side: AtomicEntry['side'], changes: Partial<AtomicEntry> = {}): AtomicEntry => ({
  side,
  lid: 0,
  address: 4096,
  operation: ATOMIC_ADD,
  values: [0, 1, 0, 0, 0, 41],
  ...changes,
});

/** What a host has logged. */
interface Log {
  readonly messages?: MessageEntry[];
  readonly atomics?: AtomicEntry[];
}

/** The summary of a run with these logs of its two hosts, when the programs moved `bytes` of data. */
function summaryOf(bytes: number, initiator: Log, target: Log, wrongWords = 0) {
  const report = (node: string, log: Log, moved: number): NodeReport => ({
    node,
    digest: '0',
    nowPs: 1,
    pending: false,
    host: { regions: [], messages: [], atomics: [], ...log } as Partial<HostReport> as HostReport,
    workload: {
      operations: 1,
      planned: 1,
      bytes: moved,
      latenciesPs: [],
      startedPs: 0,
      lastPs: 1,
      finished: true,
      words: { checked: 1, wrong: wrongWords },
      position: 'done',
    },
  });
  const reports = [report('a.host', initiator, bytes), report('b.host', target, 0)];
  return summarize({ reports, windows: 0, wallSeconds: 0, error: undefined }, 2);
}

/** Whether messages alone are enough. */
function verified(bytes: number, initiator: MessageEntry[], target: MessageEntry[]): boolean {
  return summaryOf(bytes, { messages: initiator }, { messages: target }).data_verified;
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

  const lossy = { service: QPT_UD, hash: 5 };

  it.each<[string, boolean, number, MessageEntry[], MessageEntry[]]>([
    [
      'one that arrived under another number',
      true,
      0,
      [entry('initiator', lossy)],
      [entry('target', { ...lossy, message: 9 })],
    ],
    ['one that was lost', true, 1, [entry('initiator', lossy)], []],
    [
      'one that came twice',
      true,
      0,
      [entry('initiator', lossy)],
      [entry('target', lossy), entry('target', lossy)],
    ],
    [
      'one that nobody sent',
      false,
      1,
      [entry('initiator', lossy)],
      [entry('target', { ...lossy, hash: 6 })],
    ],
  ])('of unreliable messages: %s', (_what, isVerified, lost, initiator, target) => {
    const summary = summaryOf(100, { messages: initiator }, { messages: target });
    expect(summary).toMatchObject({ data_verified: isVerified, messages_lost: lost });
  });

  it.each<[string, boolean, AtomicEntry[], number]>([
    ['executed once', true, [atomic('target')], 0],
    ['executed twice', false, [atomic('target'), atomic('target')], 0],
    ['never executed', false, [], 0],
    ['answered with another value', false, [atomic('target', { values: [0, 1, 0, 0, 0, 40] })], 0],
    ['executed elsewhere', false, [atomic('target', { address: 8192 })], 0],
    ['executed, in a word that ends at another sum', false, [atomic('target')], 1],
  ])('of an atomic operation: %s', (_what, isVerified, target, wrongWords) => {
    const summary = summaryOf(
      8,
      { atomics: [atomic('initiator')] },
      { atomics: target },
      wrongWords,
    );
    expect(summary.data_verified).toBe(isVerified);
  });
});
