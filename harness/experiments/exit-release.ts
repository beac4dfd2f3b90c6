/**
 * The end of a process: one release that drops everything, or an invalidation for each mapping (C13).
 *
 * Lameter on Andrea Arcangeli's version 7, which called release after the mappings were torn down (seed
 * 002): "The release should be called much earlier to allow the driver to release all resources in one go.
 * This way each vma must be processed individually. For our gobs of memory this method may create a scaling
 * problem on exit()." A client uses pages all over a process, which has them in ever more mappings; the
 * process exits as V6 has it (release first), or with each mapping announced by itself and the release
 * last. Look at what callbacks and CPU time of the exit grow with: nothing, or the number of mappings, and how
 * steeply depends on what one invalidation costs the client. The skeleton driver takes a lock and looks at
 * its list; the GRU flushes each of its contexts, whatever the range.
 */
import {
  type AddressSpace,
  Gru,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  SkeletonV7,
  type Thread,
} from '../../kernel/index.ts';
import { US } from '../../transport/index.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { Stage } from './stage.ts';

const BASE = 0x7f0000000000;
const RW = PROT_READ | PROT_WRITE;
/** Pages in all, whatever the number of mappings. */
const PAGES = 1024;
const MAPPINGS = [1, 32, 1024];
/** Threads of the process that use the GRU, each with a context of its own. */
const CONTEXTS = 4;

type User = 'nobody' | 'skeleton' | 'gru';

interface Ending {
  /** Callbacks into the client from the beginning of the exit on. */
  readonly callbacks: number;
  /** CPU time of the exit. */
  readonly cpuUs: number;
}

/** Has a client of that kind use the pages at `addresses`. */
function* use(user: User, mm: AddressSpace, addresses: readonly number[]): Sim<void> {
  if (user === 'skeleton') {
    const skeleton = new SkeletonV7(mm);
    yield* mm.notifiers.attach(skeleton);
    for (const address of addresses) yield* skeleton.populate(address, false, true);
  } else if (user === 'gru') {
    const gru = yield* Gru.open(mm);
    const contexts = Array.from({ length: CONTEXTS }, () => gru.createContext());
    for (const [i, address] of addresses.entries()) {
      yield* contexts[i % CONTEXTS].write(address, new Uint8Array(8));
    }
  } else for (const address of addresses) yield* mm.touch(address, 1, true);
}

/** A process with `mappings` mappings ends. */
function end(user: User, mappings: number, release: 'first' | 'last', seed: number): Ending {
  const stage = new Stage({ seed, host: { mm: { notifierRelease: release } } });
  const { host } = stage;
  const { mm } = host.createProcess('program');
  const pagesEach = PAGES / mappings;
  let ending: Ending = { callbacks: 0, cpuUs: 0 };
  stage.run(
    (function* (): Sim<void> {
      const addresses: number[] = [];
      for (let mapping = 0; mapping < mappings; mapping++) {
        // A page is left free between mappings, so that they stay apart.
        const start = BASE + mapping * (pagesEach + 1) * PAGE_BYTES;
        yield* mm.mmap(start, pagesEach * PAGE_BYTES, RW);
        for (let page = 0; page < pagesEach; page++) addresses.push(start + page * PAGE_BYTES);
      }
      yield* use(user, mm, addresses);
      const { notifiers } = mm;
      const before = notifiers.callbacks;
      const thread = host.scheduler.current as Thread;
      const cpuPs = thread.cpuPs;
      yield* mm.exit();
      ending = { callbacks: notifiers.callbacks - before, cpuUs: (thread.cpuPs - cpuPs) / US };
    })(),
  );
  return ending;
}

export const exitRelease: Experiment = {
  name: 'exit-release',
  systems: ['S1'],
  claims: ['C13'],
  title: 'What does the end of a process cost, released in one go or mapping by mapping?',
  run(seed): ExperimentResult {
    const rows: Cell[][] = [];
    const most = MAPPINGS.at(-1) as number;
    const atMost: Partial<Record<User, { readonly first: Ending; readonly last: Ending }>> = {};
    let isFlat = true;
    for (const user of ['nobody', 'skeleton', 'gru'] as const) {
      let one: Ending | undefined;
      for (const mappings of MAPPINGS) {
        const first = end(user, mappings, 'first', seed);
        const last = end(user, mappings, 'last', seed);
        rows.push([user, mappings, first.callbacks, last.callbacks, first.cpuUs, last.cpuUs]);
        one ??= first;
        if (first.callbacks !== one.callbacks || first.cpuUs !== one.cpuUs) isFlat = false;
        if (mappings === most) atMost[user] = { first, last };
      }
    }
    const said = (['skeleton', 'gru'] as const).map((user) => {
      const { first, last } = atMost[user] as { first: Ending; last: Ending };
      return `${user} ${first.cpuUs.toFixed(0)} against ${last.cpuUs.toFixed(0)} us`;
    });
    const { skeleton, gru, nobody } = atMost;
    const grows = [skeleton, gru].every(
      (ending) =>
        ending !== undefined &&
        ending.last.callbacks > 2 * most &&
        ending.last.cpuUs > ending.first.cpuUs,
    );
    return {
      columns: [
        'client',
        'mappings',
        'callbacks_one_go',
        'callbacks_each',
        'exit_cpu_one_go_us',
        'exit_cpu_each_us',
      ],
      rows,
      result: `exit with ${most} mappings, in one go against one by one: ${said.join(', ')}; in one go the number of mappings ${isFlat ? 'makes no difference' : 'counts'}`,
      ok: isFlat && grows && nobody?.last.callbacks === 0,
    };
  },
};
