/**
 * The rules of the notifiers (S1: seed 000, patch 1, and seed 002), and what they cost who has no notifier.
 *
 * Each row is a rule that somebody breaks on purpose in a world of his own: an entry made between begin and
 * end, a page freed that a client maps, a callback that sleeps under a spinlock, a client freed before its
 * grace period is over. Look at the reports: each comes at once and says what, who, why, where and when.
 * The result line also has a program without clients that maps and unmaps, alone and beside a process with a
 * client: its CPU time must be the same.
 */
import { PAGE_BYTES, PROT_READ, PROT_WRITE, type Sim } from '../../kernel/index.ts';
import { SimulationBug, type TimePs } from '../../transport/index.ts';
import type { Experiment, ExperimentResult } from './experiment.ts';
import { Gadget } from './gadget.ts';
import { BASE, type RuleBreak, ruleBreaks } from './rule-breaks.ts';
import { Stage } from './stage.ts';

const RW = PROT_READ | PROT_WRITE;
const PAGES = 4;
const RAM_BYTES = 256 * PAGE_BYTES;
/** Mappings that the program without clients makes and takes away. */
const ROUNDS = 200;

interface Report {
  readonly message: string;
  /** Whether it is what the rule has to say, with the node and the time at which the world stood. */
  readonly isRight: boolean;
}

/** Breaks a rule in a world of its own. */
function breakRule({ how, report, config }: RuleBreak, seed: number): Report {
  const stage = new Stage({ seed, host: { memoryBytes: RAM_BYTES, ...config } });
  const { host } = stage;
  const gadget = new Gadget(host.mm);
  let frame = -1;
  host.spawn(
    'breaker',
    (function* (): Sim<void> {
      yield* host.mm.mmap(BASE, PAGES * PAGE_BYTES, RW);
      yield* host.mm.touch(BASE, PAGES, true);
      frame = host.mm.pages.followPage(BASE / PAGE_BYTES, false);
      yield* host.mm.notifiers.attach(gadget);
      yield* how({ host }, gadget);
    })(),
  );
  try {
    stage.settle();
  } catch (problem) {
    if (!(problem instanceof SimulationBug)) throw problem;
    const { name, now } = host.node;
    const expected = `${report.replace('FRAME', String(frame))} (node ${name}, ${now} ps)`;
    return { message: problem.message, isRight: problem.message === expected };
  }
  return { message: 'nothing', isRight: false };
}

/** CPU time of a program that maps, writes and unmaps, with a client in another process or without. */
function costWithoutClients(isBeside: boolean, seed: number): TimePs {
  const stage = new Stage({ seed });
  const { host } = stage;
  let cpuPs = 0;
  stage.run(
    (function* (): Sim<void> {
      const other = host.createProcess('other').mm;
      if (isBeside) yield* other.notifiers.attach(new Gadget(other));
      const thread = host.spawn('program', program());
      yield thread.done;
      cpuPs = thread.cpuPs;
    })(),
  );
  function* program(): Sim<void> {
    for (let round = 0; round < ROUNDS; round++) {
      yield* host.mm.mmap(BASE, PAGES * PAGE_BYTES, RW);
      yield* host.mm.touch(BASE, PAGES, true);
      yield* host.mm.mprotect(BASE, PAGES * PAGE_BYTES, PROT_READ);
      yield* host.mm.munmap(BASE, PAGES * PAGE_BYTES);
    }
  }
  return cpuPs;
}

export const notifierRules: Experiment = {
  name: 'notifier-rules',
  systems: ['S1'],
  title: 'Is each rule of the notifiers, broken on purpose, reported at once?',
  run(seed): ExperimentResult {
    const rows: string[][] = [];
    let caught = 0;
    for (const rule of ruleBreaks) {
      const { message, isRight } = breakRule(rule, seed);
      if (isRight) caught++;
      rows.push([rule.rule, isRight ? 'yes' : 'NO', message]);
    }
    const alone = costWithoutClients(false, seed);
    const beside = costWithoutClients(true, seed);
    return {
      columns: ['rule', 'caught', 'report'],
      rows,
      result:
        `${caught} of ${ruleBreaks.length} broken rules are reported at once; ` +
        `${ROUNDS} mappings without a client cost ${alone / 1e6} us, and ${beside / 1e6} us ` +
        'beside a process that has one',
      ok: caught === ruleBreaks.length && alone === beside,
    };
  },
};
