/**
 * Simulated time and the only arithmetic on it.
 *
 * Time is an integer number of picoseconds in a JavaScript number: exact to 2^53 ps, two and a half
 * hours. One byte takes 80 ps at 100 Gb/s. Adapter cycles are not picoseconds; `hca/profile.ts`
 * converts them.
 */

/** A point in simulated time, or a span of it: integer picoseconds. */
export type TimePs = number;

/** One nanosecond, in picoseconds. */
export const NS = 1_000;
/** One microsecond, in picoseconds. */
export const US = 1_000_000;
/** One millisecond, in picoseconds. */
export const MS = 1_000_000_000;
/** One second, in picoseconds. */
export const SEC = 1_000_000_000_000;

/** Later than every event. Deadlines that do not fit 2^53 ps become this. */
export const NEVER: TimePs = Number.POSITIVE_INFINITY;

/** `now + spanPs`, or NEVER where the sum is no longer an exact integer. */
export function deadline(now: TimePs, spanPs: TimePs): TimePs {
  const at = now + spanPs;
  return at <= Number.MAX_SAFE_INTEGER ? at : NEVER;
}

/** How long `bytes` occupy a line of `rateGbps` (10^9 bits per second), rounded up. */
export function serializationPs(bytes: number, rateGbps: number): TimePs {
  return Math.ceil((bytes * 8_000) / rateGbps);
}
