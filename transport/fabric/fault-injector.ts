/**
 * Loss on a link, decided by the sending node from a named random stream.
 *
 * The digest still records the packet as sent; nobody receives it.
 */
import type { RandomStream } from '../sim/prng.ts';

export class FaultInjector {
  /** Packets taken out so far. */
  dropped = 0;

  /** `lossPpm`: how many packets in a million are lost. */
  constructor(
    private readonly stream: RandomStream,
    private readonly lossPpm: number,
  ) {}

  /** True when this injector never takes anything out, so that trains may pass whole. */
  get isQuiet(): boolean {
    return this.lossPpm === 0;
  }

  /** Whether the next packet is lost. */
  drops(): boolean {
    if (this.lossPpm === 0 || !this.stream.chance(this.lossPpm)) return false;
    this.dropped++;
    return true;
  }
}
