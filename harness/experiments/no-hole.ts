/**
 * An adapter whose regions may have no holes and cannot be changed (S12: IBM's eHCA class).
 *
 * The same calls on such an adapter and on one that takes page faults. Look at what is refused, with which
 * errno; that pinned registration and transfers work all the same; and that memory can go offline under the
 * one adapter only.
 */
import { type HcaProfile, profiles } from '../../hca/index.ts';
import {
  type MemoryRegion,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  SystemCallError,
  VerbsError,
} from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_WRITE,
  ADVICE_PREFETCH,
  ADVISE_FLUSH,
  SIZE_MAX,
} from '../../transport/index.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { Loopback } from './loopback.ts';
import { Stage } from './stage.ts';

const BASE = 0x7f0000000000;
const PAGES = 16;
const BYTES = PAGES * PAGE_BYTES;
const RIGHTS = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE;

/** What came of each call, by name: 'ok' or an errno. */
type Answers = Map<string, string>;

function ask(profile: string, seed: number): { answers: Answers; detail: string } {
  const stage = new Stage({ seed, adapters: true, profile: profiles[profile] as HcaProfile });
  const { host } = stage;
  const { mm, verbs } = host;
  const answers: Answers = new Map();
  let detail = '';
  const attempt = function* (name: string, call: Sim<unknown>): Sim<void> {
    try {
      yield* call;
      answers.set(name, 'ok');
    } catch (error) {
      if (!(error instanceof VerbsError) && !(error instanceof SystemCallError)) throw error;
      answers.set(name, error.errno);
      detail ||= error.message;
    }
  };
  stage.run(
    (function* (): Sim<void> {
      const loop = yield* Loopback.open(host);
      const { pd } = loop;
      yield* mm.mmap(BASE, 2 * BYTES, PROT_READ | PROT_WRITE);
      yield* mm.fill(BASE, BYTES, seed);
      let region: MemoryRegion | undefined;
      yield* attempt(
        'register, pinned',
        (function* (): Sim<void> {
          region = yield* verbs.regMr(pd, BASE, 2 * BYTES, RIGHTS);
        })(),
      );
      if (region === undefined) return;
      yield* attempt('transfer', loop.write(region, BASE, region, BASE + BYTES, BYTES));
      const whole = mm.hash(BASE, BYTES) === mm.hash(BASE + BYTES, BYTES);
      answers.set('every byte arrived', whole ? 'ok' : 'no');
      const onDemand = RIGHTS | ACCESS_ON_DEMAND;
      let paged = region;
      yield* attempt(
        'register, on demand',
        (function* (): Sim<void> {
          paged = yield* verbs.regMr(pd, BASE, BYTES, onDemand);
        })(),
      );
      yield* attempt('register, whole address space', verbs.regMr(pd, 0, SIZE_MAX, onDemand));
      yield* attempt(
        'change of the range',
        verbs.reregMr(region, { range: { address: BASE, length: BYTES } }),
      );
      const { lkey } = paged;
      const sges = [{ address: BASE, length: PAGE_BYTES, lkey }];
      yield* attempt('prefetch', verbs.adviseMr(pd, ADVICE_PREFETCH, ADVISE_FLUSH, sges));
      const veto = host.memoryNotifiers.ask('going offline', 0, 32_768);
      answers.set('memory goes offline', veto === undefined ? 'ok' : 'EBUSY');
    })(),
  );
  return { answers, detail };
}

function run(seed: number): ExperimentResult {
  const fixed = ask('ehca', seed);
  const paging = ask('connectx-4', seed);
  const rows: Cell[][] = [...fixed.answers].map(([call, answer]) => [
    call,
    answer,
    paging.answers.get(call) ?? '',
  ]);
  const refused = rows.filter(([, answer]) => answer !== 'ok');
  const onlyThere = ['register, pinned', 'transfer', 'every byte arrived'];
  const ok =
    rows.length > onlyThere.length &&
    rows.every(([call, answer]) => (answer === 'ok') === onlyThere.includes(String(call))) &&
    paging.answers.get('register, on demand') === 'ok';
  return {
    columns: ['call', 'no_holes', 'paging'],
    rows,
    result: `${refused.length} of ${rows.length} calls are refused where regions may have no holes (${fixed.detail}); pinned memory works`,
    ok,
  };
}

export const noHole: Experiment = {
  name: 'no-hole',
  systems: ['S12'],
  title: 'What does an adapter refuse whose regions may have no holes?',
  run,
};
