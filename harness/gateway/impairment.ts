/**
 * What a gateway does to the RoCE packets of one direction on purpose, so that both ends have
 * something to recover from: it loses, repeats, damages and delays some.
 *
 * Chance comes from a stream named by the seed that the impairment was asked for with, so the same
 * packets in the same order meet the same fate. ARP and its like are never touched.
 */
import { RandomStream, type TimePs } from '../../transport/index.ts';

/** Shares are packets in a million. */
export interface ImpairmentSpec {
  readonly dropPpm: number;
  readonly duplicatePpm: number;
  readonly corruptPpm: number;
  readonly reorderPpm: number;
  /** How late a reordered packet is; later ones pass it. */
  readonly reorderPs: TimePs;
  /** Packets that are lost for certain, counted from 1. */
  readonly drop: readonly number[];
  readonly seed: number;
}

/** What becomes of one packet. */
export interface Fate {
  /** 0: lost; 2: sent twice. */
  readonly copies: number;
  readonly isDamaged: boolean;
  readonly delayPs: TimePs;
}

const WHOLE: Fate = { copies: 1, isDamaged: false, delayPs: 0 };

export class Impairment {
  private readonly chance: RandomStream;
  private readonly lost: ReadonlySet<number>;
  private count = 0;

  /** `direction` tells the two directions' streams apart. */
  constructor(
    private readonly spec: ImpairmentSpec,
    direction: 'send' | 'receive',
  ) {
    this.chance = new RandomStream(spec.seed, direction, 'impairment');
    this.lost = new Set(spec.drop);
  }

  /** The fate of the next packet. */
  next(): Fate {
    const { dropPpm, duplicatePpm, corruptPpm, reorderPpm, reorderPs } = this.spec;
    this.count++;
    // Each kind draws for each packet, so that no kind shifts another.
    const isLost = this.chance.chance(dropPpm) || this.lost.has(this.count);
    const isDoubled = this.chance.chance(duplicatePpm);
    const isDamaged = this.chance.chance(corruptPpm);
    const isLate = this.chance.chance(reorderPpm);
    if (isLost) return { ...WHOLE, copies: 0 };
    if (!isDoubled && !isDamaged && !isLate) return WHOLE;
    return { copies: isDoubled ? 2 : 1, isDamaged, delayPs: isLate ? reorderPs : 0 };
  }

  /** Flips one bit of `frame` behind its first `from` bytes; returns a copy. */
  damage(frame: Uint8Array, from: number): Uint8Array {
    const bit = this.chance.below((frame.length - from) * 8);
    const damaged = frame.slice();
    damaged[from + (bit >>> 3)] ^= 1 << (bit & 7);
    return damaged;
  }
}
