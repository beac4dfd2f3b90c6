/** The recorded runs that ship, and the reader of their format. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { checkPair } from '../../harness/trace/check-pair.ts';
import { shippedRuns } from '../../harness/trace/folder.ts';
import type { TraceEvent } from '../../harness/trace/format.ts';
import { parseTrace, readEnd, readTrace } from '../../harness/trace/reader.ts';
import { eventText, writeRun } from '../fixtures/recorded-run.ts';
import { temporaryFolder } from './fixtures.ts';

const parse = (...lines: string[]) => parseTrace(Buffer.from(eventText(lines)), 'case.gz', 'case');

describe('the recordings that ship', () => {
  it('are three', () => {
    expect(shippedRuns()).toEqual(['hpcc', 'qe', 'qe-mmap128k']);
  });

  it('are complete: as many events of each kind as were recorded', () => {
    const count = (events: readonly TraceEvent[]) =>
      events.reduce<Record<string, number>>((counts, { kind }) => {
        counts[kind] = (counts[kind] ?? 0) + 1;
        return counts;
      }, {});
    const rank = readTrace('qe-mmap128k', 0);
    expect(rank).toMatchObject({ run: 'qe-mmap128k', rank: 0, ranks: 4, brk: 0x55f08b28d000 });
    // mmap and munmap hold one shmat and one shmdt each.
    expect(count(rank.events)).toEqual({
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
    expect(rank.resident).toHaveLength(124);
    expect(count(readTrace('hpcc', 3).events)).toMatchObject({ rx: 8844, tx: 8832, done: 17676 });
    expect(readEnd('hpcc', 3).resident.reduce((sum, { pageCount }) => sum + pageCount, 0)).toBe(
      6828,
    );
  });

  it.each(['hpcc', 'qe-mmap128k'])('have a send for each receive between ranks: %s', (run) => {
    const ranks = [0, 1, 2, 3].map((rank) => readTrace(run, rank));
    for (const a of ranks) {
      for (const b of ranks) if (a !== b) expect(() => checkPair(a, b)).not.toThrow();
    }
  });
});

describe('the reader', () => {
  it('reads every kind of line', () => {
    const { resident, events } = parse(
      '0\tres\t1000\t2\ta',
      '0\tres\t5000\t1\tf',
      '5\tmmap\t7f0000000000\t4096\tr-x\tpF\t/lib/a@b.so@0x2000',
      '5\tmmap\t7f0000000000\t4096\t---\tsNH\t-\t1234',
      '0\tmunmap\t1000\t4096\t1234',
      '0\tmremap\t1000\t4096\t9000\t8192\t0x3',
      '0\tbrk\t6000\t-4096',
      '0\tmadvise\t1000\t4096\tMADV_DONTNEED',
      '0\tmprotect\t1000\t4096\trw-',
      '0\tshmat\t8000\t4096\t65596, NULL, 0',
      '0\tshmdt\t8000\t4096\t',
      '1\tcs\t1000\t8\t8\t1\tbcast',
      '1\tpf\t1000\t2\tuM\t17',
      '0\tcall\t77\tallreduce\t-1\t0',
      '0\tptx\t1000\t10\t8\t1\t-12\t0\t\t77',
      '0\ttx\t1000\t10\t10\t2\t9001\t0\t\t78\tsend',
      '0\tprx\t1000\t10\t10\t1\t-12\t0\t3\t77',
      '0\trx\t1000\t10\t10\t-1\t-1\t0\t2.4\t79\tirecv',
      '0\trx\t1000\t10\t10\t-1\t-1\t0\t-\t80\tirecv',
      '0\tret\t77',
      '0\tdone\t78\t10',
    );
    expect(resident).toEqual([
      { address: 0x1000, pageCount: 2, anonymous: true },
      { address: 0x5000, pageCount: 1, anonymous: false },
    ]);
    expect(events).toMatchObject([
      {
        line: 4,
        gapNs: 5,
        kind: 'mmap',
        address: 0x7f0000000000,
        length: 4096,
        prot: 5,
        flags: 0,
        file: '/lib/a@b.so',
        fileOffset: 0x2000,
        isHelper: false,
      },
      { kind: 'mmap', prot: 0, flags: 0x44001, file: '', isHelper: true },
      { kind: 'munmap', length: 4096, isHelper: true },
      { kind: 'mremap', address: 0x1000, newAddress: 0x9000, newLength: 8192 },
      { kind: 'brk', end: 0x6000 },
      { kind: 'madvise', advice: 4 },
      { kind: 'mprotect', prot: 3, isHelper: false },
      { kind: 'mmap', address: 0x8000, prot: 3, flags: 1, file: 'SYSV 65596' },
      { kind: 'munmap', address: 0x8000 },
      { kind: 'pf', pageCount: 2, gapNs: 2 },
      { kind: 'call', id: 77 },
      { kind: 'ptx', length: 10, bytes: 8, peer: 1, message: 1, id: 77 },
      { kind: 'tx', peer: 2, message: 2, id: 78 },
      { kind: 'prx', peer: 1, message: 3, id: 77 },
      { kind: 'rx', peer: 2, message: 4, id: 79 },
      { kind: 'rx', peer: -1, message: 0, id: 80 },
      { kind: 'ret', id: 77 },
      { kind: 'done', id: 78 },
    ]);
  });

  it('refuses every prefix of a file', () => {
    const whole = eventText(['5\tcall\t1\tbcast\t0\t0', '7\tret\t1']);
    for (let length = 0; length < whole.length; length++) {
      const bytes = Buffer.from(whole.slice(0, length));
      expect(() => parseTrace(bytes, 'case.gz')).toThrow(
        expect.objectContaining({ code: 'E_TRACE_INVALID' }),
      );
    }
  });

  it.each([
    ['an unknown kind', '5\tcal\t1', "'cal' is not a kind"],
    ['a number that is none', '5\tret\t1x', "'1x' is not a number"],
    ['a number beyond 2^53', '5\tret\t9007199254740993', 'is not a number'],
    ['a time that is none', '-5\tret\t1', "'-5' is not a number"],
    ['an address beyond 2^47', '5\tpf\t800000000000\t1\tu\t0', "'800000000000' is not an address"],
    ['an address with 0x', '5\tpf\t0x1000\t1\tu\t0', "'0x1000' is not an address"],
    ['an address in capitals', '5\tpf\tA000\t1\tu\t0', "'A000' is not an address"],
    ['a column that is missing', '5\tmunmap\t7f00', 'columns are missing'],
    ['a column too many', '5\tret\t1\t2', "'2' is a column too many"],
    ['an empty column', '5\tret\t', "'' is not a number"],
    ['a protection that is none', '5\tmprotect\t1000\t4096\trx', "'rx' is not a protection"],
    ['a flag that is none', '5\tmmap\t1000\t4096\trw-\tpQ\t-', "'Q' is not a flag"],
    ['a backing that is none', '5\tmmap\t1000\t4096\trw-\tp\t/lib/x', "'/lib/x' is no backing"],
    ['advice that is none', '5\tmadvise\t1000\t4096\tMADV_BAD', "'MADV_BAD' is no advice"],
    ['a fork', '5\tclone\tfork', "clone 'fork' cannot be replayed"],
    ['a match that is none', '0\tprx\t1000\t1\t1\t1\t0\t0\tx\t1', "'x' is no match"],
  ])('refuses %s', (_, line, message) => {
    expect(() => parse('0\tret\t1', line)).toThrow(
      expect.objectContaining({
        code: 'E_TRACE_INVALID',
        place: 'case.gz:3',
        exitStatus: 2,
        message: expect.stringContaining(message),
      }),
    );
  });

  it.each([
    ['maps', 'what is this', 'rank0.maps.gz:1'],
    ['maps', '2000-1000 rw-p 00000000 00:00 0', 'rank0.maps.gz:1'],
    ['maps', '1000-800000000001 rw-p 00000000 00:00 0', 'rank0.maps.gz:1'],
    ['maps_end', '1000-2000 rwp 00000000 00:00 0', 'rank0.maps_end.gz:1'],
    ['res_end', '1234 1 a', 'rank0.res_end.gz:1'],
    ['res_end', '1000 1 x', 'rank0.res_end.gz:1'],
  ])('refuses a bad line of %s: %s', (part, line, place) => {
    const run = writeRun(join(temporaryFolder(), 'run'), [{}]);
    writeFileSync(join(run, `rank0.${part}.gz`), gzipSync(`${line}\n`));
    const read = () => [readTrace(run, 0), readEnd(run, 0)];
    expect(read).toThrow(
      expect.objectContaining({ code: 'E_TRACE_INVALID', place: join(run, place) }),
    );
  });

  it('refuses messages that do not match', () => {
    const receiver = parse('0\tprx\t1000\t10\t10\t1\t0\t0\t1\t5');
    const silent = { ...parse('0\tret\t1'), rank: 1 };
    expect(() => checkPair(receiver, silent)).toThrow(
      expect.objectContaining({ code: 'E_TRACE_INVALID', place: 'case.gz:2' }),
    );
    const loud = { ...parse('0\tptx\t1000\t20\t20\t0\t0\t0\t\t5'), rank: 1 };
    expect(() => checkPair(receiver, loud)).toThrow(
      expect.objectContaining({ code: 'E_TRACE_INVALID', place: 'case.gz:2' }),
    );
  });
});
