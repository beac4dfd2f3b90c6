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
