/**
 * The two ways out of an adapter, and which one leads to a destination.
 *
 * Every packet leaves by the wire, but for those whose destination is the port they come from: they
 * go back into the receive pipeline without ever being on the link. Does not own what a way does
 * with its packets (`transmitter.ts`).
 */
import type { Transmitter } from './transmitter.ts';

export class Ways {
  /** `lid` is the port's own. */
  constructor(
    readonly wire: Transmitter,
    private readonly loopback: Transmitter,
    private readonly lid: number,
  ) {}

  /** The way to the port with LID `destLid`. */
  to(destLid: number): Transmitter {
    return destLid === this.lid ? this.loopback : this.wire;
  }
}
