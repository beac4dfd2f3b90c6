/** ACK extended transport header: syndromes and the RNR timer table (IBTA 9.7.5.1, 9.7.5.2.8). */
import { MS } from '../../transport/index.ts';

/** High bits of a syndrome; what else they can hold is reserved. */
export const AETH_KIND = 0xe0;
export const AETH_ACK = 0x00;
export const AETH_RNR_NAK = 0x20;
export const AETH_NAK = 0x60;
/** ACK without credit information: end-to-end flow control is not used. */
export const AETH_ACK_NO_CREDITS = 0x1f;

/** Codes of a NAK. */
export const NAK_SEQUENCE = 0;
export const NAK_INVALID_REQUEST = 1;
export const NAK_REMOTE_ACCESS = 2;
export const NAK_REMOTE_OPERATION = 3;

/** The wait that each of the 32 RNR timer codes asks for, ps. */
export const rnrTimerPs: readonly number[] = [
  655.36, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48, 0.64, 0.96, 1.28, 1.92,
  2.56, 3.84, 5.12, 7.68, 10.24, 15.36, 20.48, 30.72, 40.96, 61.44, 81.92, 122.88, 163.84, 245.76,
  327.68, 491.52,
].map((ms) => Math.round(ms * MS));

/** Receives that each credit code 0 to 30 grants (IBTA 9.7.7.2.4; 31 grants any number). */
export const creditCounts: readonly number[] = [
  0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048,
  3072, 4096, 6144, 8192, 12_288, 16_384, 24_576, 32_768,
];

/** The largest credit code that `receives` posted receives cover. */
export function creditCode(receives: number): number {
  let code = creditCounts.length - 1;
  while (creditCounts[code] > receives) code--;
  return code;
}
