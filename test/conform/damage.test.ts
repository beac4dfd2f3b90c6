/** Captures and texts with bytes changed at random: a result or a Failure, never anything else. */

import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { parseCapture } from '../../harness/conform/capture.ts';
import { parseCaptureText } from '../../harness/conform/rcpeer-text.ts';
import { replay } from '../../harness/conform/replay.ts';
import { Failure, RandomStream } from '../../transport/index.ts';
import { captureBytes, capturePath } from '../captures/captures.ts';

const names = [
  'rc_atomic',
  'rc_read',
  'rc_dup',
  'rc_rnr_exceeded',
  'rc_lost_ack',
  'uc',
  'ud',
  'tool_rping',
];
const CASES_EACH = 12;
/** What may stand in a text where nobody expects it. */
const junk = [
  '0',
  '-1',
  '99999999999999999999',
  'len=1000000000000',
  ';',
  'n=1000000',
  '\n',
  'sges=99',
  'mr=31',
  'ERR x',
  'modify state=reset;',
  'op=bind',
  'gid=::',
  'mtu=1 ',
];

describe('damaged input of a replay', () => {
  it.each(names)('%s', (name) => {
    const random = new RandomStream(1, name, 'damage');
    const whole = captureBytes(name);
    const path = capturePath(name).replace('.pcap', '.txt');
    const original = readFileSync(path, 'utf8');
    for (let i = 0; i < CASES_EACH; i++) {
      const bytes = Uint8Array.from(whole);
      for (let k = 0; k < i % 4; k++) {
        bytes[24 + random.below(bytes.length - 24)]! ^= 1 << random.below(8);
      }
      const at = random.below(original.length);
      const cut = random.below(30);
      const text = original.slice(0, at) + junk[i % junk.length] + original.slice(at + cut);
      try {
        replay(parseCapture(bytes, name), parseCaptureText(i % 3 === 0 ? original : text, name));
      } catch (error) {
        expect(error).toBeInstanceOf(Failure);
      }
    }
  });
});
