/** `faultline decode`: what it says of real captures, and of files that are none. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { opTitle } from '../../harness/decode/names.ts';
import {
  encodeRoce,
  FramePool,
  LINK_ETHERNET,
  opName,
  pcapngHead,
  ROCE_MAX_BYTES,
  RoceHeader,
  writeEnhancedPacket,
} from '../../transport/index.ts';
import { captureBytes, captureNames, capturePath } from '../captures/captures.ts';
import { runTool } from '../fixtures/external-tool.ts';
import { frameOf, knownOpcodes } from '../wire/wire-frames.ts';
import { runHere, start, temporaryFolder } from './fixtures.ts';

interface DecodedFrame {
  readonly frame: number;
  readonly kind: string;
  readonly time_ns: number;
  readonly name: string;
  readonly qpn: number;
  readonly psn: number;
  readonly icrc: string;
  readonly fields: Record<string, string | number>;
  readonly meaning: string;
}

async function decoded(path: string): Promise<{
  readonly frames: readonly DecodedFrame[];
  readonly summary: Record<string, unknown>;
}> {
  const { status, stdout } = await runHere('decode', path, '--json');
  expect(status).toBe(0);
  return JSON.parse(stdout);
}

/** What frames mean to their receivers, in captures of known stories. */
const stories: Readonly<Record<string, Readonly<Record<number, string>>>> = {
  rc_seq_nak: {
    3: 'new: packet 3 of 6, RDMA WRITE of 6000 bytes',
    7: 'PSN 258 is missing: go back to frame 3; acknowledges PSNs 256 to 257 (frames 1 to 2)',
    8: 'again, as frame 3, which the receiver asked for: packet 3 of 6, RDMA WRITE of 6000 bytes',
    11: 'again, as frame 6: packet 6 of 6, RDMA WRITE of 6000 bytes',
    12: 'acknowledges PSNs 258 to 261 (frames 8 to 11)',
  },
  rc_rnr_exceeded: {
    2: 'not ready for frame 1: send it again in 1.28 ms',
    3: 'SEND, beyond PSN 256 that the receiver waits for: dropped',
    4: 'PSN 256 is missing: go back to frame 1',
    5: 'again, as frame 1, which the receiver asked for: SEND',
  },
  rc_lost_ack: {
    3: 'new: packet 3 of 3, SEND',
    6: 'duplicate of frame 2: packet 2 of 3, SEND, acknowledged again, not carried out again',
    8: 'acknowledges frame 7 once more',
  },
  rc_lost_read_req: {
    1: 'new: RDMA READ of 3000 bytes, to be answered in 3 packets',
    2: 'again, as frame 1: RDMA READ of 3000 bytes, to be answered in 3 packets',
    4: 'response 2 of 3, RDMA READ of 3000 bytes of frame 2',
  },
  rc_read: {
    12: 'new: RDMA READ of 2500 bytes, to be answered in 3 packets',
    15: 'response 2 of 3, RDMA READ of 2500 bytes of frame 11',
    17: 'response 1 of 3, RDMA READ of 2500 bytes of frame 12',
  },
  rc_atomic: {
    1: 'new: FETCH ADD',
    6: 'result of the COMPARE SWAP of frame 5',
    8: 'ATOMIC WRITE of frame 7 is done',
  },
  rc_flush: { 5: 'new: FLUSH of 2500 bytes', 6: 'FLUSH of 2500 bytes of frame 5 is done' },
  rc_bad_range: {
    2: 'refuses frame 1: remote access error, the work completes with IBV_WC_REM_ACCESS_ERR',
  },
  rc_bad_opcode_seq: {
    4: 'refuses frame 2: invalid request, the work completes with IBV_WC_REM_INV_REQ_ERR; acknowledges PSN 256 (frame 1)',
  },
  uc: { 12: 'new: packet 2 of 3, RDMA WRITE of 3000 bytes', 14: 'new: SEND' },
  ud: { 1: 'datagram from QP 0x00003a' },
  tool_rping: { 1: 'connection manager: ConnectRequest', 3: 'connection manager: ReadyToUse' },
};

describe('what packets mean', () => {
  it.each(Object.keys(stories))('%s', async (name) => {
    const { frames } = await decoded(capturePath(name));
    for (const [frame, meaning] of Object.entries(stories[name] ?? {})) {
      expect(frames[Number(frame) - 1]?.meaning, `frame ${frame}`).toBe(meaning);
    }
  });

  it.each(captureNames)(
    '%s: every packet is read, and every answer finds its request',
    async (name) => {
      const { frames, summary } = await decoded(capturePath(name));
      expect(summary).toMatchObject({ frames: frames.length, malformed: 0, wrong_icrcs: 0 });
      const lost = frames.filter(({ meaning }) =>
        /was not sent|nothing was asked|not in the capture|reserved/.test(meaning ?? ''),
      );
      // Where loss happens inside a guest, packets are missing in the capture; else nothing is.
      if (name !== 'tool_netem_loss') expect(lost).toEqual([]);
      const rules = name === 'rc_flush' ? { 'rxe-flush-icrc': 1 } : {};
      expect(summary.icrc_rules).toEqual(rules);
    },
  );

  it('flows are paired and counted', async () => {
    const { summary } = await decoded(capturePath('rc_rnr'));
    expect(summary.flows).toMatchObject([
      { source_qpn: 23, dest_qpn: 23, first_psn: 256, next_psn: 259, retransmitted: 51 },
      { source_qpn: 23, dest_qpn: 23, naks: 17, rnr_naks: 17, retransmitted: 0 },
    ]);
  });

  it('a line has number, time, way, opcode, QP, PSN, fields, length, ICRC and meaning', async () => {
    const { stdout } = await runHere('decode', capturePath('rc_flush'));
    const lines = stdout.split('\n');
    expect(lines[0]).toBe(
      '    1   0.000000000  192.0.2.1 > 192.0.2.2  RC RDMA Write First, QP 0x000036, PSN 256, ' +
        'va 0x00007fb5195cc000, rkey 0x000027fc, length 2500, 1024 bytes, ICRC ok | ' +
        'new: packet 1 of 3, RDMA WRITE of 2500 bytes',
    );
    expect(lines[4]).toContain('ICRC ok by rxe-flush-icrc');
    expect(stdout).toContain('6 frames: 6 packets, 0 with a wrong ICRC, 1 right by rxe-flush-icrc');
  });

  it('a PSN that was never sent is a gap, over the wrap of PSNs too', async () => {
    const pool = new FramePool(undefined, 16, 16);
    const header = new RoceHeader();
    const parts = [pcapngHead('test', [{ name: 'a', linkType: LINK_ETHERNET }])];
    [0xfffffe, 0xffffff, 1, 0].forEach((psn, i) => {
      const packet = { opcode: 0x04, flags: 0, qpn: 7, psn, lids: 0, pkey: 0xffff };
      const rest = { addressHigh: 0, addressLow: 0, words: [], payload: new Uint8Array(4) };
      const bytes = new Uint8Array(ROCE_MAX_BYTES);
      const end = encodeRoce(pool, frameOf(pool, { ...packet, ...rest }), 0, header, bytes, 0);
      const out = new Uint8Array(ROCE_MAX_BYTES);
      parts.push(out.slice(0, writeEnhancedPacket(0, i, bytes.subarray(0, end), out, 0)));
    });
    const file = join(temporaryFolder(), 'gap.pcapng');
    writeFileSync(file, Buffer.concat(parts));
    const { frames } = await decoded(file);
    expect(frames.map(({ meaning }) => meaning)).toEqual([
      'new: SEND',
      'new: SEND',
      'SEND, but PSN 0 never came: dropped, answered with NAK PSN sequence error',
      'what was missing: SEND',
    ]);
  });
});

describe('names of opcodes', () => {
  it('are those of Wireshark', (context) => {
    const pool = new FramePool(undefined, 256, 256);
    const header = new RoceHeader();
    const parts = [pcapngHead('test', [{ name: 'a', linkType: LINK_ETHERNET }])];
    const known = knownOpcodes.filter((op) => op < 0x60 && !/FLUSH|ATOMIC_WRITE/.test(opName[op]));
    for (const opcode of known) {
      const packet = { opcode, flags: 0, qpn: 0x77, psn: 1, lids: 0, pkey: 0xffff };
      const rest = { addressHigh: 0, addressLow: 0, words: [0, 0, 0, 0, 0, 0, 0, 0] };
      const payload = new Uint8Array(4);
      const frame = frameOf(pool, { ...packet, ...rest, payload });
      const bytes = new Uint8Array(ROCE_MAX_BYTES);
      const end = encodeRoce(pool, frame, 0, header, bytes, 0);
      const out = new Uint8Array(ROCE_MAX_BYTES);
      parts.push(out.slice(0, writeEnhancedPacket(0, opcode, bytes.subarray(0, end), out, 0)));
    }
    const file = join(temporaryFolder(), 'all.pcapng');
    writeFileSync(file, Buffer.concat(parts));
    const args = ['-r', file, '-T', 'fields', '-e', '_ws.col.Info'];
    const info = runTool(context, 'tshark', args);
    const names = info
      .trimEnd()
      .split('\n')
      .map((line) => line.replace(/ *QP=.*/, ''));
    expect(known.map(opTitle)).toEqual(names);
  });
});

describe('captures that cannot be decoded', () => {
  const good = captureBytes('rc_send');
  const withLink = (linkType: number): Uint8Array => {
    const copy = Uint8Array.from(good);
    copy[20] = linkType;
    return copy;
  };

  it.each([
    ['a file that is not there', undefined, 'E_CAPTURE_NOT_FOUND', 'capture.pcap: ENOENT', 0],
    [
      'a text',
      Uint8Array.of(104, 105, 33, 10),
      'E_CAPTURE_INVALID',
      'byte 0: it starts with 68',
      0,
    ],
    ['an empty file', new Uint8Array(0), 'E_CAPTURE_INVALID', 'byte 0: the file is empty', 0],
    ['a cut off file', good.slice(0, 1000), 'E_CAPTURE_INVALID', 'byte 240: frame 3 is cut off', 2],
    [
      'a foreign link type',
      withLink(105),
      'E_CAPTURE_LINK',
      'byte 24: frame 1 has link type 105',
      0,
    ],
  ])(
    '%s: code, place, exit status, and the frames in front',
    async (_, bytes, code, text, frames) => {
      const file = join(temporaryFolder(), 'capture.pcap');
      if (bytes !== undefined) writeFileSync(file, bytes);
      const { status, stdout, stderr } = await runHere('decode', file);
      expect(status).toBe(2);
      expect(stderr).toMatch(new RegExp(`^faultline: ${code} `));
      expect(stderr).toContain(text);
      expect(stdout.split('\n').filter((line) => / > /.test(line))).toHaveLength(frames);
    },
  );

  it('a folder, a device', async () => {
    const folder = join(temporaryFolder(), 'x.pcap');
    mkdirSync(folder);
    for (const path of [folder, '/dev/zero']) {
      const { status, stderr } = await runHere('decode', path);
      expect([status, stderr]).toEqual([2, expect.stringContaining('it is not a file')]);
    }
  });

  it('JSON ends well even then', async () => {
    const file = join(temporaryFolder(), 'capture.pcap');
    writeFileSync(file, good.slice(0, 1000));
    const { status, stdout, stderr } = await runHere('decode', file, '--json');
    expect(JSON.parse(stdout)).toMatchObject({ frames: [{ frame: 1 }, { frame: 2 }] });
    expect([status, stderr]).toEqual([2, expect.stringContaining('E_CAPTURE_INVALID')]);
  });
});

describe('packets that are wrong', () => {
  const damaged = (): string => {
    const bytes = Uint8Array.from(captureBytes('rc_send'));
    bytes[24 + 16 + 60] = bytes[24 + 16 + 60] ^ 1; // the payload of frame 1
    bytes[24 + 16 + 122 + 16 + 39] = 1; // the UDP length of frame 2
    const file = join(temporaryFolder(), 'damaged.pcap');
    writeFileSync(file, bytes);
    return file;
  };

  it('are told, and no failure', async () => {
    const { status, stdout } = await runHere('decode', damaged());
    expect(status).toBe(0);
    const lines = stdout.split('\n');
    expect(lines[0]).toContain('ICRC WRONG | dropped: its ICRC is wrong');
    expect(lines[1]).toContain('MALFORMED: a length field');
    expect(stdout).toContain('1 with a wrong ICRC, 1 malformed');
  });

  it('are a failure with --strict', async () => {
    expect((await runHere('decode', damaged(), '--strict')).status).toBe(1);
    expect((await runHere('decode', capturePath('rc_flush'), '--strict')).status).toBe(0);
  });
});

describe('a reader that has seen enough', () => {
  it('ends the command quietly', async () => {
    const running = start(temporaryFolder(), 'decode', capturePath('tool_netem_loss'));
    running.process.stdout?.once('data', () => running.process.stdout?.destroy());
    const { status, stderr } = await running.done;
    expect([status, stderr]).toEqual([0, '']);
  });

  it('may also come late', async () => {
    const running = start(temporaryFolder(), 'decode', capturePath('tool_netem_loss'), '--json');
    const { status, stdout } = await running.done;
    expect(status).toBe(0);
    expect(JSON.parse(stdout).frames).toHaveLength(707);
  });
});
