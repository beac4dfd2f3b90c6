/** A comparer that lets something through is worth nothing: every changed field must be noticed. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { parseCaptureText } from '../../harness/conform/rcpeer-text.ts';
import { replay } from '../../harness/conform/replay.ts';
import { RC_FLUSH } from '../../transport/index.ts';
import { edits, load, mutate } from './mutate.ts';

const captures = new URL('../captures/', import.meta.url).pathname;
/** Captures in which every packet of both hosts is compared; of long ones, some of their packets. */
const files = [
  'rc_send',
  'rc_read',
  'rc_atomic',
  'rc_seq_nak',
  'rc_flush',
  'rc_rnr_exceeded',
  'rc_ipv6',
  'ud',
  'uc',
];
const ANSWER_EDITS = ['syndrome', 'msn'];

describe('a changed field does not conform', () => {
  for (const file of files) {
    const loaded = load(captures + file);
    it.each(Object.entries(edits))(`${file}: %s`, (name, edit) => {
      let changed = 0;
      const { packets } = loaded.capture;
      for (const target of packets.filter(({ index }) => packets.length < 16 || index % 3 === 0)) {
        // The ICRC of a FLUSH is rxe's own, and not made right here.
        if (target.packet.opcode === RC_FLUSH) continue;
        let applies = false;
        const capture = mutate(loaded, target, (frame, bth) => {
          applies = edit(frame, bth);
        });
        if (!applies) continue;
        changed++;
        const { differences } = replay(capture, loaded.text);
        expect(differences, `frame ${target.number}`).not.toEqual([]);
      }
      const isUnanswered = file.startsWith('u') && ANSWER_EDITS.includes(name);
      expect(changed > 0).toBe(!isUnanswered);
    });
  }

  it('a wrong ICRC is told with its frame', () => {
    const loaded = load(`${captures}rc_send`);
    const target = loaded.capture.packets[2]!;
    const bytes = Uint8Array.from(loaded.bytes);
    bytes[target.bytes.byteOffset + target.bytes.length - 1] ^= 1;
    const capture = mutate({ ...loaded, bytes }, loaded.capture.packets[0]!, () => {});
    expect(replay(capture, loaded.text).differences).toContain('frame 3: its ICRC is wrong');
  });
});

/** Answers of the programs: one text replaced by another, and part of what is then said. */
const texts: readonly (readonly [file: string, from: string, to: string, said: string])[] = [
  ['rc_send', 'op=recv len=2500', 'op=recv len=2501', 'length is 2501 there, 2500 here'],
  ['rc_send', 'imm=0xdeadbeef', 'imm=0xdeadbeee', 'immediate'],
  ['rc_send', 'WC id=3 status=0 (success) op=send', 'WC id=4 status=0 (success) op=send', 'id'],
  ['rc_bad_rkey', 'WC id=1 status=10', 'WC id=1 status=9', 'status is 9 there, 10 here'],
  ['rc_write', 'CHECK ok len=5000', 'ERR CHECK bad at=7 got=00 want=01', 'check'],
  ['rc_atomic', 'DUMP 0807060504030201', 'DUMP 0807060504030202', 'dump'],
  ['rc_seq_nak', 'seed=8; post', 'seed=9; post', 'payload'],
  ['rc_read', 'fill len=65536 seed=77', 'fill len=65536 seed=78', 'payload'],
  ['rc_bad_range', 'len=8192 lkey', 'len=16384 lkey', 'opcode'],
  ['rc_lost_last', 'frame 3: dropped', 'frame 2: dropped', 'frame'],
  [
    'uc',
    'WAITED got=0 ms=303',
    'WC id=9 status=0 (success) op=recv len=1\n    WAITED got=1',
    "'WC id=9",
  ],
  ['ud', 'src_qp=0x00003a flags=3', 'src_qp=0x00003b flags=3', 'source QPN'],
];

describe('a changed answer of a program does not conform', () => {
  it.each(texts)('%s: %s', (file, from, to, said) => {
    const { capture, text } = load(captures + file);
    const original = readFileSync(`${captures}${file}.txt`, 'utf8');
    expect(original).toContain(from);
    expect(text).toBeDefined();
    const changed = parseCaptureText(original.replace(from, to), file);
    expect(replay(capture, changed).differences.join()).toContain(said);
  });
});

describe('readings of the interventions', () => {
  it('leave the capture as it is', () => {
    const { bytes, capture, text } = load(`${captures}rc_bad_opcode`);
    const before = Uint8Array.from(bytes);
    replay(capture, text && { ...text, description: '' });
    expect(bytes).toEqual(before);
  });

  it.each(['rc_misaligned_atomic', 'rc_bad_icrc', 'rc_bad_opcode_seq'])(
    '%s is explained without the words of the text',
    (file) => {
      const { capture, text } = load(captures + file);
      const { differences, findings } = replay(capture, text && { ...text, description: '' });
      expect(differences).toEqual([]);
      expect(findings.departures.map(({ rule }) => rule)).toContain('altered-in-flight');
    },
  );

  it('excuse nothing at frames that are not listed', () => {
    const loaded = load(`${captures}rc_bad_opcode_seq`);
    const answer = loaded.capture.packets[3]!;
    const capture = mutate(loaded, answer, (frame, bth) => {
      frame[bth + 12] = 0x62;
    });
    const { differences } = replay(capture, { ...loaded.text!, interventions: [] });
    expect(differences).not.toEqual([]);
  });
});
