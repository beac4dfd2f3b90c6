/** What a control client may say, and what it is told when it says something else. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseLine } from '../../harness/gateway/control-protocol.ts';
import { edgeCounterNames } from '../../harness/gateway/edge-counters.ts';
import { patternBytes } from '../../harness/gateway/pattern.ts';

describe('a line that is no command', () => {
  const cases: readonly [line: string, id: unknown, problem: RegExp][] = [
    ['', null, /^not JSON/],
    ['open', null, /^not JSON/],
    ['{', null, /^not JSON/],
    ['[]', null, /expected object|Invalid input/],
    ['null', null, /./],
    ['{}', null, /verb/],
    ['{"id":7}', 7, /verb/],
    ['{"id":"x","verb":"opne"}', 'x', /verb/],
    ['{"id":{},"verb":"info"}', null, /id/],
    ['{"id":1,"verb":"info","more":1}', 1, /Unrecognized key/],
    ['{"id":1,"verb":"open","type":"rd"}', 1, /type/],
    ['{"id":1,"verb":"open","psn":16777216}', 1, /psn: not an integer from 0 to 16777215/],
    ['{"id":1,"verb":"open","psn":-1}', 1, /psn/],
    ['{"id":1,"verb":"open","psn":1.5}', 1, /psn/],
    ['{"id":1,"verb":"open","psn":"0xg"}', 1, /psn/],
    ['{"id":1,"verb":"open","psn":""}', 1, /psn/],
    ['{"id":1,"verb":"open","access":"lx"}', 1, /access/],
    ['{"id":1,"verb":"open","len":1e12}', 1, /len/],
    ['{"id":1,"verb":"connect"}', 1, /gid/],
    ['{"id":1,"verb":"connect","gid":"somewhere"}', 1, /gid: not an IP address/],
    ['{"id":1,"verb":"connect","gid":"192.0.2.1","mtu":1500}', 1, /mtu/],
    ['{"id":1,"verb":"connect","gid":"192.0.2.1","mac":"ff:ff:ff:ff:ff:ff"}', 1, /mac/],
    ['{"id":1,"verb":"post"}', 1, /op/],
    ['{"id":1,"verb":"post","op":"cas","cmp":"0x10000000000000000"}', 1, /cmp/],
    ['{"id":1,"verb":"post","op":"send","sges":17}', 1, /sges/],
    ['{"id":1,"verb":"poke","hex":"0"}', 1, /hex/],
    ['{"id":1,"verb":"poke","hex":"zz"}', 1, /hex/],
    ['{"id":1,"verb":"wait","ms":600001}', 1, /ms/],
    ['{"id":1,"verb":"modify","state":"broken"}', 1, /state/],
    ['{"id":1,"verb":"impair","dropPpm":1000001}', 1, /dropPpm/],
  ];
  for (const [line, id, problem] of cases) {
    it(line === '' ? '(nothing)' : line, () => {
      const parsed = parseLine(line);
      expect(parsed).not.toHaveProperty('command');
      if ('command' in parsed) return;
      expect(parsed.id).toBe(id);
      expect(parsed.problem).toMatch(problem);
    });
  }

  it('never throws, whatever it is', () => {
    fc.assert(fc.property(fc.string(), (line) => parseLine(line) !== undefined));
    fc.assert(fc.property(fc.json(), (line) => parseLine(line) !== undefined));
    fc.assert(
      fc.property(
        fc.constantFrom('open', 'connect', 'post', 'recv', 'wait', 'impair', 'poke'),
        fc.dictionary(
          fc.constantFrom('qp', 'len', 'op', 'gid', 'n', 'hex', 'drop'),
          fc.jsonValue(),
        ),
        (verb, fields) => parseLine(JSON.stringify({ verb, ...fields })) !== undefined,
      ),
    );
  });
});

describe('a command', () => {
  it('has numbers in any C base', () => {
    for (const [text, value] of [
      ['0x10', 16],
      ['020', 16],
      ['16', 16],
      ['0', 0],
    ] as const) {
      expect(parseLine(`{"verb":"open","psn":"${text}"}`)).toMatchObject({
        command: { verb: 'open', psn: value },
      });
    }
  });

  it('has the defaults of rcpeer', () => {
    expect(parseLine('{"verb":"connect","gid":"::ffff:192.0.2.1"}')).toMatchObject({
      command: { qp: 0, mtu: 1024, timeout: 14, retry: 7, rnr: 7, minrnr: 12, rd: 16, drd: 16 },
    });
    expect(parseLine('{"verb":"post","op":"faa","add":"-1"}')).toMatchObject({
      command: { op: 'faa', add: 2n ** 64n - 1n, sig: 1, mr: 0, ftype: 1 },
    });
  });

  it('fills buffers with the bytes of rcpeer', () => {
    const bytes = patternBytes(5, 0, 1000);
    for (const i of [0, 1, 255, 256, 257, 999]) {
      expect(bytes[i]).toBe((5 + 7 * i + 13 * (i >> 8)) & 255);
    }
    expect([...patternBytes(5, 300, 10)]).toEqual([...bytes.subarray(300, 310)]);
  });
});

describe('docs/GATEWAY.md', () => {
  const text = readFileSync(new URL('../../docs/GATEWAY.md', import.meta.url), 'utf8');

  it('has every verb', () => {
    const source = readFileSync(
      new URL('../../harness/gateway/control-protocol.ts', import.meta.url),
      'utf8',
    );
    const verbs = [...source.matchAll(/^ {2}verb\('(\w+)'/gm)].map(([, verb]) => verb);
    expect(verbs.length).toBeGreaterThan(25);
    expect(verbs.filter((verb) => !text.includes(`| \`${verb}\` |`))).toEqual([]);
  });

  it('has every counter of the edge', () => {
    expect(edgeCounterNames.filter((name) => !text.includes(`\`${name}\``))).toEqual([]);
  });
});
