/**
 * faultline for scripts: what a scenario file imports from 'faultline'.
 */
export * from './scenario/builder.ts';
export {
  bytes,
  gbps,
  gib,
  kib,
  mib,
  ms,
  ns,
  percent,
  type Rate,
  type Share,
  type Size,
  type Time,
  us,
} from './scenario/quantity.ts';
export type { Mode, Scenario, ScenarioInput } from './scenario/schema.ts';
