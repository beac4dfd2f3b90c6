/** The parts of a scenario by name, so that checking one operation does not look at all the others. */
import { Named } from './problem.ts';
import type {
  HostSpec,
  QueuePairSpec,
  RegionSpec,
  Scenario,
  SharedReceiveQueueSpec,
  WindowSpec,
} from './schema.ts';

export interface ScenarioIndex {
  readonly hosts: Named<HostSpec>;
  readonly queuePairs: Named<QueuePairSpec>;
  readonly regions: Named<RegionSpec>;
  readonly srqs: Named<SharedReceiveQueueSpec>;
  readonly windows: Named<WindowSpec>;
  /** The shared receive queue whose receives stand in a region. */
  readonly srqOfRegion: ReadonlyMap<string, SharedReceiveQueueSpec>;
}

/** Indexes a scenario; throws Failure E_SCENARIO_INVALID when a name comes twice. */
export function indexOf(scenario: Scenario): ScenarioIndex {
  const { hosts, queuePairs, regions, sharedReceiveQueues, windows } = scenario;
  return {
    hosts: new Named(hosts, 'hosts', 'host'),
    queuePairs: new Named(queuePairs, 'queuePairs', 'queue pair'),
    regions: new Named(regions, 'regions', 'region'),
    srqs: new Named(sharedReceiveQueues, 'sharedReceiveQueues', 'shared receive queue'),
    windows: new Named(windows, 'windows', 'memory window'),
    // The first of several, which is no scenario (see validate.ts).
    srqOfRegion: new Map([...sharedReceiveQueues].reverse().map((srq) => [srq.region, srq])),
  };
}

/** The shared receive queue that an end of a queue pair takes its receives from. */
export function srqAt(
  { srqs, regions }: ScenarioIndex,
  pair: QueuePairSpec,
  host: string,
): SharedReceiveQueueSpec | undefined {
  const name = pair.srqs.find((srq) => regions.get(srqs.get(srq, 'srqs').region, '').host === host);
  return name === undefined ? undefined : srqs.get(name, 'srqs');
}
