/** Lists in the documents are the lists in the code. */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { queuePairsCsv } from '../../harness/stats/queue-pairs.ts';
import { counterNames, profiles } from '../../hca/index.ts';
import { failureCodes, opFlags, opHeaderBytes, opName } from '../../transport/index.ts';
import { makeBench } from '../kernel/bench.ts';

const root = new URL('../../', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8');

describe('documents', () => {
  it('docs/STATS.md names every counter of the adapter', () => {
    const text = read('docs/STATS.md');
    expect(counterNames.filter((name) => !text.includes(`\`${name}\``))).toEqual([]);
  });

  it('docs/STATS.md names every counter of a host and every column of qp.csv', () => {
    const text = read('docs/STATS.md');
    const { mm, dma } = makeBench().host.report();
    const names = [...Object.keys(mm), ...Object.keys(dma)];
    expect(names.filter((name) => !text.includes(`\`${name}\``))).toEqual([]);
    const [columns] = queuePairsCsv([]).split('\n');
    expect(text.replace(/`\n`/g, '')).toContain(columns);
  });

  it('docs/WIRE.md has every error code with its exit status and meaning', () => {
    const text = read('docs/WIRE.md');
    for (const [code, [status, meaning]] of Object.entries(failureCodes)) {
      expect(text).toContain(`| \`${code}\` | ${status} | ${meaning} |`);
    }
  });

  it('docs/WIRE.md has every opcode with its length', () => {
    const text = read('docs/WIRE.md');
    opName.forEach((name, op) => {
      const row = `| 0x${op.toString(16).padStart(2, '0')} | ${name} | ${opHeaderBytes[op]} |`;
      if (opFlags[op] !== 0) expect(text).toContain(row);
    });
  });

  it('README.md names every profile that is not for benchmarks', () => {
    const text = read('README.md');
    const names = Object.keys(profiles).filter((name) => !name.endsWith('-ack-all'));
    expect(names.filter((name) => !text.includes(`\`${name}\``))).toEqual([]);
  });

  it('decisions are numbered without gaps', () => {
    const files = readdirSync(new URL('docs/decisions/', root)).filter((f) => /^\d/.test(f));
    expect(files.sort().map((f) => Number(f.slice(0, 4)))).toEqual(files.map((_, i) => i + 1));
  });
});

describe('the simulated world', () => {
  it('has no clock, chance, timer or promise of the real one', () => {
    const banned =
      /\bDate\b|Math\.(random|pow|exp|log|sin|cos)|setTimeout|setInterval|setImmediate|queueMicrotask|performance\.now|\bawait\b|\bPromise\b/;
    const folders = ['transport/sim', 'transport/wire', 'transport/fabric', 'hca', 'kernel'];
    const offences: string[] = [];
    for (const folder of folders) {
      for (const file of readdirSync(new URL(`${folder}/`, root), { recursive: true })) {
        if (!String(file).endsWith('.ts')) continue;
        read(`${folder}/${file}`)
          .split('\n')
          .forEach((line, i) => {
            const code = line.replace(/^\s*(\*|\/\*|\/\/).*/, '').replace(/\/\/.*/, '');
            if (banned.test(code)) offences.push(`${folder}/${file}:${i + 1} ${line.trim()}`);
          });
      }
    }
    expect(offences).toEqual([]);
  });
});
