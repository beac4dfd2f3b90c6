/**
 * Where threads and streams meet: a thread as a stream that completes when the thread ends, and a
 * stream as something a thread can sleep on.
 */
import { Observable } from 'rxjs';
import type { Node } from '../../transport/index.ts';
import { Completion, type Sim } from '../sched/completion.ts';
import type { Scheduler } from '../sched/scheduler.ts';
import { subscribeOrFail } from './subscribe.ts';

/**
 * A stream that, for each subscriber, runs `body` as a thread and completes when it returns.
 * `onBehalf`: the subscriber sleeps until then (see Scheduler.spawn).
 */
export function threadStream(
  scheduler: Scheduler,
  name: string,
  body: () => Sim<void>,
  onBehalf = false,
): Observable<never> {
  return new Observable<never>((subscriber) => {
    const thread = scheduler.spawn(name, body(), onBehalf);
    thread.done.subscribe({ wake: () => subscriber.complete() });
  });
}

/** Sleeps until `stream` completes; its values are not looked at. */
export function* untilComplete(
  node: Node,
  stream: Observable<unknown>,
  purpose: string,
): Sim<void> {
  const over = new Completion<void>(purpose);
  subscribeOrFail(
    node,
    stream,
    () => {},
    () => over.resolve(),
  );
  if (!over.done) yield over;
}
