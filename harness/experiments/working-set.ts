/**
 * Two servers whose needs change places, in memory that holds both needs but not twice the larger one
 * (NPF, "working set swap": 100 and 900 MB that change places at 50 s, in a cgroup of 1 GB).
 *
 * On demand, memory follows use: each server has registered all it may ever use, and what it stops using is
 * swapped when the other one needs room. Pinned, each has a fixed 500 MB, and what does not fit has to be fetched from
 * the same device again and again. Look at the operations of each server after the change.
 * Published: on demand both are equal, pinned one of them suffers.
 *
 * Sizes are 1/64 of the paper's. An operation takes 5 us and touches one random page: assumed. A pinned
 * server keeps what it fetched last in its memory, and fetches a page in the time that the swap device takes.
 */
import {
  type Host,
  type HostProcess,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type Sim,
} from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  MS,
  RandomStream,
  type TimePs,
  US,
} from '../../transport/index.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { Stage } from './stage.ts';

const MIB = 2 ** 20;
const GROUP_BYTES = 16 * MIB;
const SMALL_PAGES = (100 * MIB) / 64 / PAGE_BYTES;
const LARGE_PAGES = (900 * MIB) / 64 / PAGE_BYTES;
const PINNED_PAGES = (500 * MIB) / 64 / PAGE_BYTES;
const BASE = 0x7f0000000000;
const OPERATION_PS: TimePs = 5 * US;
/** Length of each of the two phases, and of the end of each that is counted. */
const PHASE_PS: TimePs = 800 * MS;
const COUNTED_PS: TimePs = 200 * MS;

type Memory = 'on demand' | 'pinned';

/** One server: what it needs now, and what it did while it was counted. */
class Server {
  readonly counts = [0, 0];
  private readonly random: RandomStream;
  /** Pinned: which page of its data each place of its memory has, and where each page of its data is. */
  private readonly places = new Int32Array(PINNED_PAGES).fill(-1);
  private readonly placeOf = new Int32Array(LARGE_PAGES).fill(-1);
  private nextPlace = 0;

  constructor(
    private readonly host: Host,
    readonly process: HostProcess,
    private readonly memory: Memory,
    seed: number,
  ) {
    this.random = new RandomStream(seed, process.name, 'operations');
  }

  /** Maps and registers its memory. */
  *prepare(): Sim<void> {
    const { mm, verbs } = this.process;
    const bytes = (this.memory === 'pinned' ? PINNED_PAGES : LARGE_PAGES) * PAGE_BYTES;
    yield* mm.mmap(BASE, bytes, PROT_READ | PROT_WRITE);
    const pd = yield* verbs.allocPd();
    const access = ACCESS_LOCAL_WRITE | (this.memory === 'pinned' ? 0 : ACCESS_ON_DEMAND);
    yield* verbs.regMr(pd, BASE, bytes, access);
  }

  /** Answers requests for random pages of its data until `endPs`. */
  *serve(needs: readonly [pages: number, pages: number], startPs: TimePs): Sim<void> {
    const { node } = this.host;
    for (let phase = 0; phase < 2; phase++) {
      const endPs = startPs + (phase + 1) * PHASE_PS;
      while (node.now < endPs) {
        const page = this.random.below(needs[phase] ?? 0);
        yield* this.memory === 'pinned' ? this.lookUp(page) : this.touch(page);
        yield OPERATION_PS;
        if (node.now >= endPs - COUNTED_PS) this.counts[phase] = (this.counts[phase] ?? 0) + 1;
      }
    }
  }

  private *touch(page: number): Sim<void> {
    yield* this.process.mm.touch(BASE + page * PAGE_BYTES, 1, true);
  }

  /** Finds a page of its data in its own memory, or fetches it in place of the one that came first. */
  private *lookUp(page: number): Sim<void> {
    if ((this.placeOf[page] ?? -1) < 0) {
      const { costs } = this.host.ram;
      yield* this.host.sleep(costs.swapLatencyPs);
      const place = this.nextPlace++ % PINNED_PAGES;
      const before = this.places[place] ?? -1;
      if (before >= 0) this.placeOf[before] = -1;
      this.places[place] = page;
      this.placeOf[page] = place;
    }
    yield* this.touch(this.placeOf[page] ?? 0);
  }
}

/** Operations of both servers at the end of both phases. */
function measure(memory: Memory, seed: number): number[][] {
  const stage = new Stage({
    seed,
    adapters: true,
    host: { memoryBytes: 4 * GROUP_BYTES, swapBytes: 4 * GROUP_BYTES, cpus: 4 },
  });
  const { host } = stage;
  const group = host.ram.groups.create('servers', GROUP_BYTES);
  const servers = ['first', 'second'].map((name) => {
    const process = host.createProcess(name);
    host.ram.groups.enter(process.mm.state, group);
    return new Server(host, process, memory, seed);
  });
  stage.run(
    (function* (): Sim<void> {
      for (const server of servers) yield* server.prepare();
      const startPs = host.node.now;
      const needs = [
        [SMALL_PAGES, LARGE_PAGES],
        [LARGE_PAGES, SMALL_PAGES],
      ] as const;
      const threads = servers.map((server, i) =>
        host.spawn(server.process.name, server.serve(needs[i] ?? needs[0], startPs)),
      );
      for (const thread of threads) yield thread.done;
    })(),
  );
  return servers.map(({ counts }) => counts);
}

function run(seed: number): ExperimentResult {
  const rows: Cell[][] = [];
  const shares = new Map<Memory, number>();
  for (const memory of ['on demand', 'pinned'] as const) {
    const [first = [], second = []] = measure(memory, seed);
    let worst = 1;
    for (let phase = 0; phase < 2; phase++) {
      const [small, large] = phase === 0 ? [first, second] : [second, first];
      const rate = (count: number | undefined): number => ((count ?? 0) * MS) / COUNTED_PS;
      const share = (large[phase] ?? 0) / (small[phase] ?? 1);
      worst = Math.min(worst, share);
      rows.push([
        memory,
        phase === 0 ? 'before the change' : 'after it',
        rate(small[phase]),
        rate(large[phase]),
        Math.round(100 * share),
      ]);
    }
    shares.set(memory, worst);
  }
  const [onDemand, pinned] = [shares.get('on demand') ?? 0, shares.get('pinned') ?? 0];
  return {
    columns: ['memory', 'phase', 'small_ops_per_ms', 'large_ops_per_ms', 'large_to_small_percent'],
    rows,
    result:
      `the server that needs 900 of 1000 MB does ${Math.round(100 * onDemand)} % of the work of the one ` +
      `that needs 100 MB on demand, ${Math.round(100 * pinned)} % with 500 MB pinned for each`,
    ok: onDemand > 0.9 && pinned < 0.5,
  };
}

export const workingSet: Experiment = {
  name: 'working-set',
  systems: ['S7'],
  title: 'Who suffers when the needs of two servers change places?',
  run,
};
