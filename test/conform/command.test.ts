/** `faultline conform`: results, exit statuses, and whatever is wrong with its input. */
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ConformResult } from '../../harness/conform/conform.ts';
import { rxeProfile } from '../../harness/conform/rxe-profile.ts';
import { runHere, temporaryFolder } from '../harness/fixtures.ts';

const captures = new URL('../captures/', import.meta.url).pathname;

async function results(
  ...paths: string[]
): Promise<{ status: number | null; found: ConformResult[] }> {
  const { status, stdout } = await runHere('conform', ...paths, '--json');
  return { status, found: JSON.parse(stdout) };
}

function copy(folder: string, name: string, as = name): void {
  for (const end of ['pcap', 'txt'])
    copyFileSync(`${captures}${name}.${end}`, join(folder, `${as}.${end}`));
}

describe('faultline conform', () => {
  it('searches folders and gives one result for each capture', async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, 'deep', 'er'), { recursive: true });
    copy(folder, 'rc_tclass');
    copy(join(folder, 'deep', 'er'), 'rc_flush');
    const { status, found } = await results(folder, join(folder, 'rc_tclass.pcap'));
    expect(status).toBe(0);
    expect(found).toEqual([
      {
        file: join(folder, 'deep/er/rc_flush.pcap'),
        frames: 6,
        compared: 6,
        conforms: true,
        departures: [{ rule: 'rxe-flush-icrc', frame: 5 }],
        reason: '',
      },
      {
        file: join(folder, 'rc_tclass.pcap'),
        frames: 2,
        compared: 2,
        conforms: true,
        departures: [],
        reason: '',
      },
    ]);
  });

  it('shows a table, and what does not conform below it', async () => {
    const folder = temporaryFolder();
    copy(folder, 'rc_atomic');
    const text = readFileSync(join(folder, 'rc_atomic.txt'), 'utf8');
    writeFileSync(join(folder, 'rc_atomic.txt'), text.replace('add=41', 'add=40'));
    const { status, stdout } = await runHere('conform', folder, `${captures}rc_rnr.pcap`);
    expect(status).toBe(1);
    expect(stdout).toContain('rxe-nak-after-rnr 17');
    expect(stdout).toMatch(
      /rc_atomic\.pcap: A: frame 1: .*swap or add \(low\) is 0x29 there, 0x28 here/,
    );
    expect(stdout).toContain('1 of 2 captures conform');
  });

  it('does not care what a file is called', async () => {
    const folder = temporaryFolder();
    copy(folder, 'rc_bad_opcode', 'rc_send');
    const { status, found } = await results(folder);
    expect([status, found[0]?.conforms]).toEqual([0, true]);
  });
});

interface BadInput {
  readonly what: string;
  readonly make: (folder: string) => void;
  readonly path?: string;
  readonly code: string;
  readonly place: string;
}

const pcapHead = (link: number): Uint8Array =>
  new Uint8Array(Uint32Array.of(0xa1b2c3d4, 0x00040002, 0, 0, 65536, link).buffer);

const cases: readonly BadInput[] = [
  {
    what: 'an empty file',
    make: (folder) => writeFileSync(join(folder, 'x.pcap'), ''),
    code: 'E_CAPTURE_INVALID',
    place: 'x.pcap: byte 0',
  },
  {
    what: 'something else',
    make: (folder) => writeFileSync(join(folder, 'x.pcap'), 'no capture at all'),
    code: 'E_CAPTURE_INVALID',
    place: 'x.pcap: byte 0',
  },
  {
    what: 'a capture that is cut off',
    make: (folder) => {
      copy(folder, 'rc_send', 'x');
      writeFileSync(join(folder, 'x.pcap'), readFileSync(join(folder, 'x.pcap')).subarray(0, 5000));
    },
    code: 'E_CAPTURE_INVALID',
    place: 'x.pcap: byte 4510',
  },
  {
    what: 'frames of which only the start was captured',
    make: (folder) => {
      copy(folder, 'rc_send', 'x');
      const bytes = readFileSync(join(folder, 'x.pcap'));
      // The first frame is recorded with 60 bytes of its 122.
      const record = bytes.subarray(0, 24 + 16 + 60);
      record.writeUInt32LE(60, 24 + 8);
      writeFileSync(join(folder, 'x.pcap'), record);
    },
    code: 'E_CAPTURE_INVALID',
    place: 'x.pcap: byte 24',
  },
  {
    what: 'a capture without frames',
    make: (folder) => writeFileSync(join(folder, 'x.pcap'), pcapHead(1)),
    code: 'E_NO_FRAMES',
    place: 'x.pcap',
  },
  {
    what: 'a foreign link type',
    make: (folder) => {
      const record = new Uint8Array(Uint32Array.of(0, 0, 4, 4, 0).buffer);
      writeFileSync(join(folder, 'x.pcap'), Buffer.concat([pcapHead(105), record]));
    },
    code: 'E_CAPTURE_LINK',
    place: 'x.pcap: byte 24',
  },
  {
    what: 'no set-up',
    make: (folder) => copyFileSync(`${captures}rc_send.pcap`, join(folder, 'x.pcap')),
    code: 'E_NO_SETUP',
    place: 'x.pcap',
  },
  {
    what: 'a set-up of other queue pairs',
    make: (folder) => {
      copyFileSync(`${captures}rc_send.pcap`, join(folder, 'x.pcap'));
      copyFileSync(`${captures}rc_read.txt`, join(folder, 'x.txt'));
    },
    code: 'E_NO_SETUP',
    place: 'x.pcap',
  },
  {
    what: 'a text that is none',
    make: (folder) => {
      copyFileSync(`${captures}rc_send.pcap`, join(folder, 'x.pcap'));
      writeFileSync(join(folder, 'x.txt'), Buffer.of(0xff, 0xfe, 0x80));
    },
    code: 'E_SETUP_INVALID',
    place: 'x.txt',
  },
  {
    what: 'a folder in place of the text',
    make: (folder) => {
      copyFileSync(`${captures}rc_send.pcap`, join(folder, 'x.pcap'));
      mkdirSync(join(folder, 'x.txt'));
    },
    code: 'E_SETUP_INVALID',
    place: 'x.txt',
  },
];

describe('bad input of conform', () => {
  it.each(cases)('$what', async ({ make, code, place }) => {
    const folder = temporaryFolder();
    make(folder);
    const { status, found } = await results(folder);
    expect(status).toBe(2);
    expect(found[0]).toMatchObject({ compared: 0, conforms: false, departures: [] });
    expect(found[0]?.reason).toMatch(new RegExp(`^${code} .*${place.replaceAll('.', '\\.')}`));
  });

  it.each([
    ['a missing path', 'nowhere'],
    ['a folder without captures', ''],
  ])('%s', async (_, name) => {
    const path = join(temporaryFolder(), name);
    const { status, stdout, stderr } = await runHere('conform', path);
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toContain(`E_CAPTURE_NOT_FOUND ${path}`);
  });

  it('one bad file does not hide the others', async () => {
    const folder = temporaryFolder();
    copy(folder, 'rc_tclass');
    writeFileSync(join(folder, 'bad.pcap'), '');
    const { status, found } = await results(folder);
    expect(status).toBe(2);
    expect(found.map(({ conforms }) => conforms)).toEqual([false, true]);
  });
});

describe('docs/CONFORMANCE.md', () => {
  it('has every rule of the profile, and no other', () => {
    const text = readFileSync(new URL('../../docs/CONFORMANCE.md', import.meta.url), 'utf8');
    const rows = text.split('\n').filter((line) => /^\| `(rxe-|lost|altered|delivered)/.test(line));
    expect(rows).toEqual(
      rxeProfile.map(
        ({ name, specification, departure, source }) =>
          `| \`${name}\` | ${specification} | ${departure} | ${source} |`,
      ),
    );
  });
});
