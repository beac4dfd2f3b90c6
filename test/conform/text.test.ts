/** The text beside a capture: what is read of it, and what is said of one that is damaged. */
import { describe, expect, it } from 'vitest';
import { parseCaptureText, Words } from '../../harness/conform/rcpeer-text.ts';
import { Failure } from '../../transport/index.ts';

const open = [
  'A: rcpeer psn=0x100',
  '    LOCAL type=rc qpn=0x000011 psn=0x000100 gid=::ffff:192.0.2.1 gididx=1 mtu=1024 state=0',
  '    MR id=0 addr=0x7f0000001000 len=4096 lkey=0x00000200 rkey=0x00000201',
];
const textOf = (...lines: string[]): string =>
  ['kernel', 'name', 'what it is', '', ...open, ...lines, ''].join('\n');

describe('the text beside a capture', () => {
  it('gives peers, commands with their answers, and interventions', () => {
    const text = parseCaptureText(
      textOf(
        'A> connect qpn=1 gid=192.0.2.2; mw id=0; post op=bind n=2; recv n=2; wait n=2; async; sleep ms=5; query',
        '    QP INIT',
        '    QP RTR',
        '    QP RTS',
        '    MW id=0 rkey=0x00000300',
        '    MW id=0 rkey=0x00000301',
        '    POSTED op=bind id=1 len=0',
        '    ERR post bind: Invalid argument',
        '    POSTED op=recv id=2 len=0',
        '    POSTED op=recv id=3 len=0',
        '    WC id=1 status=0 (success) op=bind len=0 src_qp=0x000000 flags=0',
        '    ERR wait: 1 of 2 completions in 5000 ms',
        '    ASYNC 3 (local access violation work queue error)',
        '    QUERY state=3',
        '',
        "the hub's interventions:",
        '    frame 2: dropped  [x]',
        '    frame 4: delivered as 2 frame(s)  [x]',
      ),
      'case.txt',
    );
    expect(text.description).toBe('name what it is');
    expect(text.peers[0]).toMatchObject({ name: 'A', qpn: 0x11, psn: 0x100, type: 'rc' });
    expect(text.peers[0]?.gid).toBe('00000000000000000000ffffc0000201');
    expect(text.peers[0]?.region).toMatchObject({ length: 4096, lkey: 0x200, rkey: 0x201 });
    const counts = text.commands.map(({ name, answers }) => [name, answers.length]);
    expect(counts).toEqual([
      ['connect', 3],
      ['mw', 1],
      ['post', 3],
      ['recv', 2],
      ['wait', 2],
      ['async', 1],
      ['sleep', 0],
      ['query', 1],
    ]);
    expect(text.interventions).toEqual([
      { frame: 2, copies: 0 },
      { frame: 4, copies: 2 },
    ]);
  });

  it('lets a name be opened again: commands belong to the last one', () => {
    const text = parseCaptureText(textOf('A> info', ...open, 'A> info'), 'case.txt');
    expect(text.commands.map(({ peer }) => peer)).toEqual([0, 1]);
  });

  it('knows whether hosts lost packets by themselves', () => {
    expect(parseCaptureText(textOf(), 'x').isLossy).toBe(false);
    const text = textOf('    qdisc netem 8001: root limit 1000 loss 3%');
    expect(parseCaptureText(text, 'x').isLossy).toBe(true);
  });

  it.each([
    ['12', 12n],
    ['0x1F', 31n],
    ['017', 15n],
    ['256rd=16', 256n],
    ['-1', 0xffffffffffffffffn],
    ['0xffffffffffffffff', 0xffffffffffffffffn],
    ['junk', 0n],
  ])('reads %s as strtoull does', (value, number) => {
    expect(new Words(`n=${value}`, '').big('n')).toBe(number);
  });
});

const damaged: readonly (readonly [
  what: string,
  lines: string[],
  place: string,
  expected: string,
])[] = [
  ['a command to nobody', ['B> info'], 'case.txt:8', 'B: rcpeer'],
  ['a peer that says nothing', ['B: rcpeer psn=1'], 'case.txt:8', 'a LOCAL line'],
  [
    'a LOCAL line without a number',
    ['B: rcpeer', '    LOCAL type=rc qpn=x psn=1 gid=::1'],
    'case.txt:8',
    'a number',
  ],
  [
    'a LOCAL line without a GID',
    ['B: rcpeer', '    LOCAL type=rc qpn=1 psn=1'],
    'case.txt:8',
    'gid=',
  ],
  [
    'a GID that is none',
    ['B: rcpeer', '    LOCAL type=rc qpn=1 psn=1 gid=there'],
    'case.txt:8',
    'IPv4',
  ],
  [
    'a region without a key',
    ['B: rcpeer', '    LOCAL type=rc qpn=1 psn=1 gid=::1', '    MR id=0 addr=1 len=1 lkey=1'],
    'case.txt:8',
    'rkey=',
  ],
  [
    'an answer to nothing',
    ['A> fill', '    FILLED', '    POSTED op=send id=1 len=1'],
    'case.txt:8',
    'answers in their order',
  ],
  [
    'an intervention that is none',
    ["the hub's interventions:", '    frame two: dropped'],
    'case.txt:9',
    'frame N',
  ],
];

describe('a damaged text', () => {
  it.each(damaged)('%s', (_, lines, place, expected) => {
    let failure: unknown;
    try {
      parseCaptureText(textOf(...lines), 'case.txt');
    } catch (error) {
      failure = error;
    }
    expect(failure).toBeInstanceOf(Failure);
    const { code, place: where, expected: wanted } = failure as Failure;
    expect([code, where]).toEqual(['E_SETUP_INVALID', place]);
    expect(wanted).toContain(expected);
  });
});
