/** The program's and the driver's side of a shared receive queue. */
import type { PostedReceives } from './posted-receives.ts';

export interface SharedReceiveQueue {
  readonly srqn: number;
  readonly pd: number;
  readonly receives: PostedReceives;
}
