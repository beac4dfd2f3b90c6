/**
 * What a link does to packets besides carrying them: it loses, damages, delays and repeats some.
 *
 * The sending node decides, from named random streams of its own, one for each kind, so that one
 * kind cannot shift another. The digest still records each packet as sent. Does not own when a
 * packet would arrive on a good link (`link.ts`), nor the wait of those that are late
 * (`delay-line.ts`). With loss alone, or nothing, nothing here costs an event.
 */
import type { Node, Port } from '../sim/node.ts';
import type { RandomStream } from '../sim/prng.ts';
import { type TimePs, US } from '../sim/units.ts';
import { FRAME_WORDS, type FramePool } from '../wire/frame-pool.ts';
import { BTH_DAMAGED, W_BTH_FLAGS } from '../wire/packet.ts';
import { DelayLine } from './delay-line.ts';

/** The faults of one direction of a link. Shares are packets in a million; what is left out is 0. */
export interface WireFaults {
  /** Packets that are lost. */
  readonly lossPpm: number;
  /**
   * Losses come in runs of so many packets, with the same share lost in the long run. 0 and 1: each
   * packet is lost by itself.
   */
  readonly lossBurstPackets?: number;
  /** Packets that arrive twice. */
  readonly duplicatePpm?: number;
  /** How much later the second one arrives; 0: directly behind the first. */
  readonly duplicateDelayPs?: number;
  /** Packets that arrive late. */
  readonly reorderPpm?: number;
  /** A late packet comes directly behind so many later ones; 0: the time alone decides. */
  readonly reorderPackets?: number;
  /** The most that a late packet is late, above 0; 10 us when left out. */
  readonly reorderDelayPs?: number;
  /** Packets with flipped bits: the receiver's ICRC check finds them. */
  readonly corruptPpm?: number;
}

/** What happened to a packet: bits of what `send` returns. */
export const WIRE_LOST = 1;
export const WIRE_DUPLICATED = 2;
export const WIRE_DELAYED = 4;
export const WIRE_DAMAGED = 8;

/** A link without faults; a late packet would be 10 us late. */
const NO_FAULTS: Required<WireFaults> = {
  lossPpm: 0,
  lossBurstPackets: 0,
  duplicatePpm: 0,
  duplicateDelayPs: 0,
  reorderPpm: 0,
  reorderPackets: 0,
  reorderDelayPs: 10 * US,
  corruptPpm: 0,
};
const MILLION = 1_000_000;

export class FaultInjector {
  /** True when every packet arrives, once and in order, so that trains may pass whole. */
  readonly isQuiet: boolean;
  private readonly faults: Required<WireFaults>;
  private readonly losses: RandomStream;
  private readonly duplicates: RandomStream;
  private readonly delays: RandomStream;
  private readonly damages: RandomStream;
  /** Chance that a run of losses begins, of 2^32, and packets that the one under way still takes. */
  private readonly burstBegins: number;
  private burstLeft = 0;
  /** Only where packets may be late. */
  private readonly line: DelayLine | undefined;

  /** `port` is where packets leave `node`. */
  constructor(
    node: Node,
    private readonly port: Port,
    private readonly pool: FramePool,
    config: WireFaults,
  ) {
    this.faults = { ...NO_FAULTS, ...config };
    const { lossPpm, lossBurstPackets, duplicatePpm, duplicateDelayPs, reorderPpm, corruptPpm } =
      this.faults;
    this.isQuiet = lossPpm === 0 && duplicatePpm === 0 && reorderPpm === 0 && corruptPpm === 0;
    this.losses = node.random('wire loss');
    this.duplicates = node.random('wire duplication');
    this.delays = node.random('wire reordering');
    this.damages = node.random('wire corruption');
    this.burstBegins = (2 ** 32 * lossPpm) / (lossBurstPackets * (MILLION - lossPpm) + lossPpm);
    const isEverLate = reorderPpm > 0 || (duplicatePpm > 0 && duplicateDelayPs > 0);
    this.line = isEverLate ? new DelayLine(node, port) : undefined;
  }

  /**
   * Sends `frame`, which would be there at `arrivalPs`; returns WIRE_* bits. Takes the frame over.
   * Unless the link is quiet, everything that leaves through the port passes here.
   */
  send(frame: number, arrivalPs: TimePs): number {
    if (this.loses()) {
      this.pool.release(frame);
      return WIRE_LOST;
    }
    const { duplicatePpm, duplicateDelayPs, reorderPpm, reorderPackets, reorderDelayPs } =
      this.faults;
    const isRepeated = duplicatePpm > 0 && this.duplicates.chance(duplicatePpm);
    const copy = isRepeated ? this.pool.copy(frame) : 0;
    let fate = isRepeated ? WIRE_DUPLICATED : 0;
    fate |= this.damage(frame);
    if (reorderPpm > 0 && this.delays.chance(reorderPpm)) {
      this.line?.delay(frame, arrivalPs + reorderDelayPs, reorderPackets);
      fate |= WIRE_DELAYED;
    } else this.put(frame, arrivalPs);
    if (!isRepeated) return fate;
    fate |= this.damage(copy);
    if (duplicateDelayPs > 0) this.line?.delay(copy, arrivalPs + duplicateDelayPs, 0);
    else this.put(copy, arrivalPs);
    return fate;
  }

  private put(frame: number, arrivalPs: TimePs): void {
    if (this.line === undefined) this.port.send(arrivalPs, frame);
    else this.line.pass(frame, arrivalPs);
  }

  private loses(): boolean {
    const { lossPpm, lossBurstPackets } = this.faults;
    if (lossPpm === 0) return false;
    if (lossBurstPackets <= 1) return this.losses.chance(lossPpm);
    if (this.burstLeft === 0) {
      if (this.losses.next() >= this.burstBegins) return false;
      this.burstLeft = lossBurstPackets;
    }
    this.burstLeft--;
    return true;
  }

  private damage(frame: number): number {
    const { corruptPpm } = this.faults;
    if (corruptPpm === 0 || !this.damages.chance(corruptPpm)) return 0;
    this.pool.words[frame * FRAME_WORDS + W_BTH_FLAGS] |= BTH_DAMAGED;
    return WIRE_DAMAGED;
  }
}
