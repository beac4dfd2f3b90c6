/** Sizes of rings and tables, which are powers of two so that a mask takes the place of a division. */

/** The smallest power of two that is not below `n`; `n` from 1 to 2^30. */
export function nextPowerOfTwo(n: number): number {
  return n <= 1 ? 1 : 1 << (32 - Math.clz32(Math.ceil(n) - 1));
}
