/**
 * What an invalidation costs with a device that has nothing but translation buffers (S6), against KVM and
 * an RDMA adapter.
 *
 * Steiner (seed 001): "the GRU can flush an external TLB in a single read/write/flush of a cacheline (should
 * take a few 100 nsec). Typically, an application uses a single GRU. Threaded applications, however, could
 * use one GRU per thread, so it is possible that multiple TLBs must be flushed. In some cases, the external
 * flush can be avoided if the GRU is not currently in use". Look at what each column grows with: the GRU
 * with its contexts in use and with nothing else, KVM with the pages, the adapter with a fixed sum for its
 * table and the bus and with the pages.
 */
import {
  Gru,
  type Host,
  Kvm,
  MADV_DONTNEED,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type Sim,
} from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ADVICE_PREFETCH_WRITE,
  ADVISE_FLUSH,
  NS,
  type TimePs,
} from '../../transport/index.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { Stage } from './stage.ts';

const BASE = 0x7f0000000000;
const PAGE_COUNTS = [1, 1024];
const CONTEXT_COUNTS = [1, 4, 16];

/** Makes a client use `pages` pages, and returns what the client has counted since, if anything. */
type Client = (host: Host, pages: number) => Sim<void>;

/** Time that discarding `pages` pages takes with that client. */
function discard(client: Client, pages: number, seed: number): TimePs {
  const stage = new Stage({ seed, adapters: true });
  const { host } = stage;
  const { mm, node } = host;
  let spanPs = 0;
  stage.run(
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, pages * PAGE_BYTES, PROT_READ | PROT_WRITE);
      yield* mm.touch(BASE, pages, true);
      yield* client(host, pages);
      const start = node.now;
      yield* mm.madvise(BASE, pages * PAGE_BYTES, MADV_DONTNEED);
      spanPs = node.now - start;
    })(),
  );
  return spanPs;
}

function* nobody(): Sim<void> {}

function gru(contexts: number, isActive: boolean): Client {
  return function* ({ mm }, pages) {
    const device = yield* Gru.open(mm, { tlbEntries: 1024 });
    for (let i = 0; i < contexts; i++) {
      const context = device.createContext();
      yield* context.read(BASE, pages * PAGE_BYTES);
      if (!isActive) context.unload();
    }
  };
}

function* kvm({ mm }: Host, pages: number): Sim<void> {
  const machine = yield* Kvm.create(mm);
  machine.addSlot({ firstGfn: 0, pageCount: pages, address: BASE });
  const guest = new Map(Array.from({ length: pages }, (_, i): [number, number] => [i, i]));
  yield* machine.createVcpu(guest).read(0, pages * PAGE_BYTES);
}

function* adapter({ verbs }: Host, pages: number): Sim<void> {
  const pd = yield* verbs.allocPd();
  const access = ACCESS_LOCAL_WRITE | ACCESS_ON_DEMAND;
  const { lkey } = yield* verbs.regMr(pd, BASE, pages * PAGE_BYTES, access);
  const sges = [{ address: BASE, length: pages * PAGE_BYTES, lkey }];
  yield* verbs.adviseMr(pd, ADVICE_PREFETCH_WRITE, ADVISE_FLUSH, sges);
}

export const gruFlush: Experiment = {
  name: 'gru-flush',
  systems: ['S6'],
  claims: ['C10'],
  title: 'What does a range flush cost for GRUs in use and idle, for KVM and for an adapter?',
  run(seed): ExperimentResult {
    const bare = new Map(PAGE_COUNTS.map((pages) => [pages, discard(nobody, pages, seed)]));
    const rows: Cell[][] = [];
    const costNs = new Map<string, number>();
    const measure = (name: string, contexts: number, client: Client): void => {
      for (const pages of PAGE_COUNTS) {
        const addedPs = discard(client, pages, seed) - (bare.get(pages) as number);
        costNs.set(`${name} ${contexts} ${pages}`, addedPs / NS);
        rows.push([name, contexts, pages, addedPs / NS]);
      }
    };
    for (const contexts of CONTEXT_COUNTS) measure('gru in use', contexts, gru(contexts, true));
    for (const contexts of CONTEXT_COUNTS) measure('gru idle', contexts, gru(contexts, false));
    measure('kvm', 1, kvm);
    measure('adapter, on demand', 1, adapter);
    const of = (key: string): number => costNs.get(key) as number;
    const [one, sixteen] = [of('gru in use 1 1024'), of('gru in use 16 1024')];
    const [idle, small] = [of('gru idle 16 1024'), of('gru in use 1 1')];
    const [guest, hca] = [of('kvm 1 1024'), of('adapter, on demand 1 1024')];
    const isFlat = small === one && Math.abs(sixteen - 16 * one) < one;
    return {
      columns: ['client', 'contexts', 'pages', 'added_ns'],
      rows,
      result:
        `1,024 pages: a GRU ${one.toFixed(0)} ns (one page: ${small.toFixed(0)}), 16 of them ` +
        `${sixteen.toFixed(0)}, idle ${idle.toFixed(0)}; KVM ${guest.toFixed(0)}, adapter ${hca.toFixed(0)}`,
      ok: isFlat && idle < one && guest > one && hca > one,
      plot: {
        x: 'pages',
        lines: ['added_ns'],
        by: 'client',
        only: { contexts: 1 },
        yTitle: 'nanoseconds that munmap takes longer',
        logX: true,
        logY: true,
      },
    };
  },
};
