/**
 * Memory of the process for 64 GiB of on-demand regions of which 1 % of the pages, at random, have been
 * brought in: tables of the adapter, of its driver and of the process, and the page frames, all of them.
 *
 * Measured in a process of its own, because a process keeps what it has once had.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ADVICE_PREFETCH_WRITE,
  ADVISE_FLUSH,
  RandomStream,
} from '../../transport/index.ts';
import { OneHost } from './one-host.ts';

const launcher = fileURLToPath(new URL('../launch.mjs', import.meta.url));
const GIB = 2 ** 30;
const PAGE = 4096;
const BASE = 0x7000_0000_0000;
const REGIONS = 64;
const TOUCHED_PERCENT = 1;
const MIB = 2 ** 20;

/** What the process has, in MiB, above what it had before. */
export interface MemoryUse {
  readonly rssMib: number;
  readonly arrayBuffersMib: number;
  readonly heapMib: number;
  readonly pages: number;
}

/** Measures in a new process. */
export async function odpMemoryUse(): Promise<MemoryUse> {
  const child = spawn(process.execPath, [launcher, 'bench', 'peer', 'odp-memory'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  const [code] = (await once(child, 'close')) as [number];
  if (code !== 0) throw new Error(`the process that measures memory ended with ${code}`);
  return JSON.parse(text) as MemoryUse;
}

/** The other process: registers, brings pages in, and prints what that took. */
export function measureOdpMemory(): void {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const pages = Math.floor((REGIONS * GIB * TOUCHED_PERCENT) / 100 / PAGE);
  collect();
  const before = process.memoryUsage();
  const world = new OneHost(GIB);
  const { mm, verbs } = world.host;
  const random = new RandomStream(1, 'bench', 'odp memory');
  world.run(
    (function* (): Sim<void> {
      const pd = yield* verbs.allocPd();
      yield* mm.mmap(BASE, REGIONS * GIB, PROT_READ | PROT_WRITE);
      const lkeys: number[] = [];
      for (let i = 0; i < REGIONS; i++) {
        const access = ACCESS_LOCAL_WRITE | ACCESS_ON_DEMAND;
        lkeys.push((yield* verbs.regMr(pd, BASE + i * GIB, GIB, access)).lkey);
      }
      for (let left = pages; left > 0; ) {
        const region = random.below(REGIONS);
        const address = BASE + region * GIB + random.below(GIB / PAGE) * PAGE;
        const range = { address, length: PAGE, lkey: lkeys[region] as number };
        const resident = mm.residentBytes;
        yield* verbs.adviseMr(pd, ADVICE_PREFETCH_WRITE, ADVISE_FLUSH, [range]);
        if (mm.residentBytes > resident) left--;
      }
    })(),
  );
  collect();
  const after = process.memoryUsage();
  const mapped = verbs.memoryRegions.reduce((sum, region) => sum + region.pagesMapped, 0);
  if (mapped !== pages) throw new Error(`${mapped} pages of ${pages}`);
  const mib = (field: 'rss' | 'arrayBuffers' | 'heapUsed'): number =>
    (after[field] - before[field]) / MIB;
  const use: MemoryUse = {
    rssMib: mib('rss'),
    arrayBuffersMib: mib('arrayBuffers'),
    heapMib: mib('heapUsed'),
    pages,
  };
  process.stdout.write(JSON.stringify(use));
}
