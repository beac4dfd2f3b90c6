/** The recorded run that ships, and the reader of its format. */
import { describe, expect, it } from 'vitest';
import type { TraceEvent } from '../../harness/trace/format.ts';
import { checkPair, locateTrace, parseTrace, readTrace } from '../../harness/trace/reader.ts';

const file = (...lines: string[]): string =>
  ['faultline-trace 1\tcase\t0\t2\t5000', ...lines, `end\t${lines.length + 1}`].join('\n');

describe('the recording that ships', () => {
  const ranks = [0, 1].map((rank) => readTrace(locateTrace('qe-mmap128k', rank)));
  const [first, second] = ranks as [(typeof ranks)[0], (typeof ranks)[0]];

  it('is complete: as many events of each kind as were recorded', () => {
    const count = (events: readonly TraceEvent[]) =>
      events.reduce<Record<string, number>>((counts, { kind }) => {
        counts[kind] = (counts[kind] ?? 0) + 1;
        return counts;
      }, {});
    expect(first).toMatchObject({ run: 'qe-mmap128k', rank: 0, ranks: 4, brk: 0x55f08b28d000 });
    // mmap and munmap hold one shmat and one shmdt each.
    expect(count(first.events)).toEqual({
      brk: 44,
      call: 4502,
      mmap: 3017,
      mprotect: 74,
      munmap: 2739,
      pf: 6100,
      prx: 7717,
      ptx: 9510,
      ret: 4502,
    });
  });

  it('has a send for each receive between the two ranks', () => {
    expect(() => checkPair(first, second)).not.toThrow();
    expect(() => checkPair(second, first)).not.toThrow();
  });
});

describe('the reader', () => {
  it('reads every kind of line', () => {
    const { start, events } = parseTrace(
      file(
        '0\tmap\t1000\t8192\trw-',
        '0\tres\t1000\t2',
        '5\tmmap\t7f0000000000\t4096\tr-x',
        '0\tmremap\t1000\t4096\t9000\t8192',
        '0\tbrk\t6000',
        '0\tmadvise\t1000\t4096\tMADV_DONTNEED',
        '1\tpf\t1000\t2',
        '0\tptx\t1000\t10\t8\t1\t77',
        '0\ttx\t1000\t10\t10\t2\t78',
        '0\tprx\t1000\t10\t10\t1\t3\t77',
        '0\trx\t1000\t10\t10\t-1\t-\t79',
        '0\tdone\t78',
      ),
      'case.gz',
    );
    expect(start).toHaveLength(2);
    expect(events).toMatchObject([
      { line: 4, gapNs: 5, kind: 'mmap', address: 0x7f0000000000, length: 4096, prot: 5 },
      { kind: 'mremap', address: 0x1000, newAddress: 0x9000, newLength: 8192 },
      { kind: 'brk', end: 0x6000 },
      { kind: 'madvise', advice: 'MADV_DONTNEED' },
      { kind: 'pf', pageCount: 2 },
      { kind: 'ptx', length: 10, bytes: 8, peer: 1, message: 1, id: 77 },
      { kind: 'tx', peer: 2, message: 2, id: 78 },
      { kind: 'prx', peer: 1, message: 3, id: 77 },
      { kind: 'rx', peer: -1, message: 0, id: 79 },
      { kind: 'done', id: 78 },
    ]);
  });

  it('refuses every prefix of a file', () => {
    const whole = file('5\tcall\t1', '7\tret\t1');
    for (let length = 0; length < whole.length; length++) {
      expect(() => parseTrace(whole.slice(0, length), 'case.gz')).toThrow();
    }
  });

  it('refuses messages that do not match', () => {
    const receiver = parseTrace(file('0\tprx\t1000\t10\t10\t1\t1\t5'), 'receiver.gz');
    const silent = { ...parseTrace(file('0\tcall\t1'), 'sender.gz'), rank: 1 };
    expect(() => checkPair(receiver, silent)).toThrow(
      expect.objectContaining({ code: 'E_TRACE_INVALID', place: 'receiver.gz:2' }),
    );
    const loud = { ...parseTrace(file('0\tptx\t1000\t20\t20\t0\t5'), 'sender.gz'), rank: 1 };
    expect(() => checkPair(receiver, loud)).toThrow(
      expect.objectContaining({ code: 'E_TRACE_INVALID', place: 'receiver.gz:2' }),
    );
  });
});
