/**
 * One direction of a link: serialisation at a rate, then propagation.
 *
 * The wire between adapters and each direction of the bus are links. A transmitter sends one thing
 * after another; when it is busy, what comes next waits. That is arithmetic, not events.
 */
import { serializationPs, type TimePs } from '../sim/units.ts';

export class Link {
  /** When the transmitter is free again. */
  freePs: TimePs = 0;

  /** `rateGbps` in 10^9 bits per second; `latencyPs` from the last bit sent to the last bit there. */
  constructor(
    readonly rateGbps: number,
    readonly latencyPs: TimePs,
  ) {}

  /** How long `bytes` occupy the transmitter. */
  spanOf(bytes: number): TimePs {
    return serializationPs(bytes, this.rateGbps);
  }

  /** Sends `bytes` that are ready at `readyPs`; returns when the last of them arrives. */
  transmit(readyPs: TimePs, bytes: number): TimePs {
    const start = readyPs > this.freePs ? readyPs : this.freePs;
    this.freePs = start + this.spanOf(bytes);
    return this.freePs + this.latencyPs;
  }
}
