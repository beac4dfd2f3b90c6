/** Packet sequence numbers: a circle of 2^24 (IBTA 9.7.2). */

/** `psn` moved on by `packets`. */
export function psnAdd(psn: number, packets: number): number {
  return (psn + packets) & 0xffffff;
}

/** Signed distance from `base` to `psn`, in [-2^23, 2^23). */
export function psnDistance(psn: number, base: number): number {
  return ((psn - base) << 8) >> 8;
}
