/**
 * Chance, by name. Every draw comes from a stream named by (seed, node, purpose), so adding a draw
 * in one place cannot shift another, and no stream depends on the order in which nodes run.
 *
 * The generator is sfc32 (Chris Doty-Humphrey, PractRand): 128 bits of state, 32-bit integers only.
 */

/** FNV-1a over the UTF-16 code units of `text`, started from `seed`. */
export function hashText(text: string, seed = 0): number {
  let hash = (0x811c9dc5 ^ seed) | 0;
  for (let i = 0; i < text.length; i++) {
    hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  }
  return hash >>> 0;
}

export class RandomStream {
  private a: number;
  private b: number;
  private c: number;
  private counter = 1;

  /** `seed` is the run's, `owner` the node's name, `purpose` what the draws decide. */
  constructor(seed: number, owner: string, purpose: string) {
    this.a = seed | 0;
    this.b = hashText(owner, 0x9e3779b9) | 0;
    this.c = hashText(purpose, 0x85ebca6b) | 0;
    for (let i = 0; i < 16; i++) this.next();
  }

  /** The next 32 bits, as an unsigned integer. */
  next(): number {
    const sum = (this.a + this.b + this.counter) | 0;
    this.counter = (this.counter + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = (((this.c << 21) | (this.c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** An integer in [0, bound). `bound` is at most 2^32. */
  below(bound: number): number {
    return Math.floor((this.next() * bound) / 4294967296);
  }

  /** True with a probability of `parts` in a million. */
  chance(partsPerMillion: number): boolean {
    return this.below(1_000_000) < partsPerMillion;
  }
}
