/**
 * A page that goes away while a driver takes it in (S3: the skeleton driver of seed 000, as of V6 and V7).
 *
 * One thread populates pages of a process, on another CPU the program unmaps them and gives them back.
 * Look at the column returned_only: pages that populate has handed to its caller without putting them into
 * the driver's list, so that no later invalidation reaches them. Most of their frames are somebody else's
 * page by the time the program is through (gone_at_end). V7 answers EAGAIN instead.
 */
import {
  type Host,
  MADV_DONTNEED,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  type Skeleton,
  SkeletonV6,
  SkeletonV7,
} from '../../kernel/index.ts';
import { NS, RandomStream, US } from '../../transport/index.ts';
import type { Experiment, ExperimentResult } from './experiment.ts';
import { Stage } from './stage.ts';

const BASE = 0x7f0000000000;
const RW = PROT_READ | PROT_WRITE;
const PAGES = 8;
const ATTEMPTS = 2000;

interface Outcome {
  inserted: number;
  eagain: number;
  returnedOnly: number;
  /** Frames of pages that were returned only, and are not at their address any more. */
  gone: number;
}

/** Populates ATTEMPTS pages while a program changes them. */
function race(make: (host: Host) => Skeleton, seed: number): Outcome {
  const stage = new Stage({ seed });
  const { host } = stage;
  const { mm } = host;
  const random = new RandomStream(seed, 'experiment', 'skeleton-race');
  const outcome: Outcome = { inserted: 0, eagain: 0, returnedOnly: 0, gone: 0 };
  const handedOut: { readonly page: number; readonly frame: number }[] = [];
  let isOver = false;
  function* program(): Sim<void> {
    while (!isOver) {
      const first = BASE + random.below(PAGES) * PAGE_BYTES;
      if (random.chance(200_000)) yield* mm.munmap(first, PAGE_BYTES);
      else yield* mm.madvise(BASE, PAGES * PAGE_BYTES, MADV_DONTNEED);
      yield* mm.mmap(first, PAGE_BYTES, RW);
      yield* host.sleep(random.below(3 * US));
    }
  }
  stage.run(
    (function* (): Sim<void> {
      yield* mm.mmap(BASE, PAGES * PAGE_BYTES, RW);
      const skeleton = make(host);
      yield* mm.notifiers.attach(skeleton);
      const other = host.spawn('program', program());
      for (let i = 0; i < ATTEMPTS; i++) {
        const page = BASE / PAGE_BYTES + random.below(PAGES);
        const { inserted } = skeleton;
        const frame = yield* skeleton.populate(page * PAGE_BYTES, random.chance(300_000), true);
        if (frame < 0) outcome.eagain++;
        else if (skeleton.inserted > inserted) outcome.inserted++;
        else {
          outcome.returnedOnly++;
          handedOut.push({ page, frame });
        }
        yield random.below(500) * NS;
      }
      isOver = true;
      yield other.done;
      yield* mm.notifiers.detach(skeleton);
    })(),
  );
  for (const { page, frame } of handedOut) {
    if (mm.pages.followPage(page, false) !== frame) outcome.gone++;
  }
  return outcome;
}

export const skeletonRace: Experiment = {
  name: 'skeleton-race',
  systems: ['S3'],
  title:
    'Does a driver hand out a page that it did not insert, when an invalidation comes between?',
  run(seed): ExperimentResult {
    const v6 = race((host) => new SkeletonV6(host.mm), seed);
    const v7 = race((host) => new SkeletonV7(host.mm), seed);
    const row = (version: string, { inserted, eagain, returnedOnly, gone }: Outcome) => [
      version,
      inserted,
      eagain,
      returnedOnly,
      gone,
    ];
    return {
      columns: ['version', 'inserted', 'eagain', 'returned_only', 'gone_at_end'],
      rows: [row('V6', v6), row('V7', v7)],
      result:
        `of ${ATTEMPTS} pages V6 returned ${v6.returnedOnly} that it had not inserted ` +
        `(${v6.gone} of them gone at the end), V7 ${v7.returnedOnly}`,
      ok: v6.returnedOnly > 0 && v7.returnedOnly === 0 && v6.inserted > 0 && v7.inserted > 0,
    };
  },
};
