/**
 * Which virtual machines start on a host that has less memory than they were promised (NPF, table 5).
 *
 * Virtual machines of 3 GB with an adapter of their own on a host of 8 GB, one after another. Pinned, the whole
 * memory of a machine is registered before it may run, so the third one has to find 9 GB. On demand,
 * a machine takes what its guest touches. Look at which ones start, and at what the host says when one does not.
 * Published: pinned 1 and 2 start, 3 and 4 cannot; on demand all four do.
 *
 * Sizes are 1/64 of the paper's, which changes no ratio. What a guest touches is not published: half of its
 * memory is assumed. What runs already is protected from the OOM killer, as a host protects its services.
 */
import {
  type HostProcess,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  untilKilled,
  VerbsError,
} from '../../kernel/index.ts';
import { ACCESS_LOCAL_WRITE, ACCESS_ON_DEMAND, MS } from '../../transport/index.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { Stage } from './stage.ts';

const MIB = 2 ** 20;
const HOST_BYTES = 128 * MIB;
const VM_BYTES = 48 * MIB;
/** What a guest touches of its memory: assumed. */
const TOUCHED_SHARE = 0.5;
const MACHINES = 4;
const BASE = 0x7f0000000000;

export type Memory = 'pinned' | 'on demand';

interface Start {
  readonly hasStarted: boolean;
  readonly residentPeakMib: number;
  readonly residentMib: number;
  readonly swappedMib: number;
  readonly why: string;
}

/** Starts machines one after another, and says what became of each. */
function startMachines(memory: Memory, seed: number): Start[] {
  const stage = new Stage({
    seed,
    adapters: true,
    host: { memoryBytes: HOST_BYTES, swapBytes: HOST_BYTES, cpus: 4 },
  });
  const { host } = stage;
  const starts: Start[] = [];
  stage.run(
    (function* (): Sim<void> {
      for (let i = 1; i <= MACHINES; i++) {
        const machine = host.createProcess(`vm ${i}`);
        let refusal = '';
        const killed = yield* untilKilled(
          (function* (): Sim<void> {
            refusal = yield* start(machine, memory);
          })(),
        );
        starts.push({
          hasStarted: killed === undefined && refusal === '',
          residentPeakMib: round(machine.mm.residentPeakBytes),
          residentMib: round(machine.mm.residentBytes),
          swappedMib: round(host.ram.swap.usedSlots * PAGE_BYTES),
          why: killed === undefined ? refusal : killed.reason.replace(/:.*/, ''),
        });
        if (killed === undefined) machine.mm.state.oomScoreAdj = -1000;
        // Its end takes a while: the reaper, then the adapter.
        else yield* host.sleep(1000 * MS);
      }
    })(),
  );
  return starts;
}

/** How many of four machines start, for `faultline validate`. */
export function machinesStarted(memory: Memory, seed: number): number {
  return startMachines(memory, seed).filter(({ hasStarted }) => hasStarted).length;
}

/** Registers the memory of a machine with its adapter and boots its guest; returns why it was refused. */
function* start({ mm, verbs }: HostProcess, memory: Memory): Sim<string> {
  yield* mm.mmap(BASE, VM_BYTES, PROT_READ | PROT_WRITE);
  try {
    const pd = yield* verbs.allocPd();
    const access = ACCESS_LOCAL_WRITE | (memory === 'pinned' ? 0 : ACCESS_ON_DEMAND);
    yield* verbs.regMr(pd, BASE, VM_BYTES, access);
  } catch (error) {
    if (error instanceof VerbsError && mm.state.killed === undefined) return error.message;
    if (!(error instanceof VerbsError)) throw error;
  }
  yield* mm.touch(BASE, (VM_BYTES * TOUCHED_SHARE) / PAGE_BYTES, true);
  return '';
}

/** Table 5: machines that start, of 1, 2, 3 and 4. */
const PUBLISHED: Readonly<Record<Memory, readonly boolean[]>> = {
  pinned: [true, true, false, false],
  'on demand': [true, true, true, true],
};

function run(seed: number): ExperimentResult {
  const rows: Cell[][] = [];
  const summaries: string[] = [];
  let ok = true;
  for (const memory of ['pinned', 'on demand'] as const) {
    const starts = startMachines(memory, seed);
    starts.forEach(({ hasStarted, residentPeakMib, residentMib, swappedMib, why }, i) => {
      const published = PUBLISHED[memory][i] === true;
      if (hasStarted !== published) ok = false;
      rows.push([
        memory,
        i + 1,
        hasStarted ? 'starts' : 'does not start',
        published ? 'starts' : 'cannot start',
        residentPeakMib,
        residentMib,
        swappedMib,
        why,
      ]);
    });
    const started = starts.flatMap(({ hasStarted }, i) => (hasStarted ? [i + 1] : []));
    summaries.push(`${memory}: ${started.join(', ')}`);
  }
  return {
    columns: [
      'memory',
      'machine',
      'modelled',
      'published',
      'resident_peak_mib',
      'resident_mib',
      'swapped_mib',
      'why_not',
    ],
    rows,
    result: `machines of 3 GB that start on a host of 8 GB, ${summaries.join('; ')}`,
    ok,
  };
}

function round(bytes: number): number {
  return Math.round((bytes / MIB) * 10) / 10;
}

export const overcommit: Experiment = {
  name: 'overcommit',
  systems: ['S7'],
  title: 'Which virtual machines start on a host with less memory than they were promised?',
  run,
};
