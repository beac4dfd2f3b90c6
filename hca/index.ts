/** hca: the adapter. What the other folders may use of it. */
export { type CounterName, counterNames } from './counters.ts';
export { Hca, type HcaConfig, type HcaReport } from './device.ts';
export { type HcaProfile, profiles } from './profile.ts';
export { FIRST_QPN } from './resources.ts';
