/** hca: the adapter. What the other folders may use of it. */

export type { HcaConfig } from './config.ts';
export { type CounterName, counterNames } from './counters.ts';
export { Hca } from './device.ts';
export type { HcaReport } from './hca-report.ts';
export { type HcaProfile, profiles } from './profile.ts';
export {
  AETH_ACK,
  AETH_ACK_NO_CREDITS,
  AETH_KIND,
  AETH_NAK,
  AETH_RNR_NAK,
  creditCounts,
  NAK_INVALID_REQUEST,
  NAK_REMOTE_ACCESS,
  NAK_REMOTE_OPERATION,
  NAK_SEQUENCE,
  rnrTimerPs,
} from './qp/aeth.ts';
export { psnAdd, psnDistance } from './qp/psn.ts';
export { FIRST_QPN } from './resources.ts';
