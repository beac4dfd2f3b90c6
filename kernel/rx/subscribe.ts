/**
 * The only way to subscribe to a stream inside the simulated world.
 *
 * RxJS reports what a subscriber throws in a real setTimeout, long after the event that caused it and
 * outside the run. Here every error, whether a subscriber throws it or the stream carries it, ends the
 * run at the node's current event.
 */
import type { Observable, Subscription } from 'rxjs';
import type { Node } from '../../transport/index.ts';

/** Subscribes; `next` and `complete` may throw, and so may the stream: all of it fails `node`. */
export function subscribeOrFail<T>(
  node: Node,
  stream: Observable<T>,
  next: (value: T) => void,
  complete: () => void = () => {},
): Subscription {
  const guard = (action: () => void): void => {
    try {
      action();
    } catch (error) {
      node.fail(error);
    }
  };
  return stream.subscribe({
    next: (value) => guard(() => next(value)),
    error: (error: unknown) => node.fail(error),
    complete: () => guard(complete),
  });
}
