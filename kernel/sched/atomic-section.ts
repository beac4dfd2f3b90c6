/**
 * Running a computation where nothing may sleep: a callback whose caller holds a spinlock. The scheduler
 * alone could only name the thread that slept; here whoever was called is named.
 */
import { assert, type Node } from '../../transport/index.ts';
import type { Sim } from './completion.ts';
import type { Scheduler } from './scheduler.ts';

/**
 * Runs `body` with the current thread in an atomic section; it may spend time and spin, not sleep.
 * `who`, `call` and `why` name it in the bug report of one that does.
 */
export function* runAtomic<T>(
  scheduler: Scheduler,
  node: Node,
  body: Sim<T>,
  who: string,
  call: string,
  why: string,
): Sim<T> {
  const thread = scheduler.current;
  assert(thread !== undefined, 'an atomic section needs a thread', node);
  scheduler.enterAtomic();
  let step = body.next();
  while (!step.done) {
    const wanted = step.value;
    if (typeof wanted !== 'number' && !wanted.done && !thread.spinning) {
      assert(false, `${who} sleeps in ${call}, which is atomic (${why}): ${wanted.purpose}`, node);
    }
    step = body.next(yield wanted);
  }
  scheduler.leaveAtomic();
  return step.value;
}
