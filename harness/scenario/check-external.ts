/**
 * Checks what a scenario says about a host that is not simulated: there is at most one, and whatever
 * only that host can know is given. Every problem is a Failure E_SCENARIO_INVALID.
 */
import { consumesReceive } from './operation-schema.ts';
import { invalid } from './problem.ts';
import type { Scenario } from './schema.ts';

/** Throws unless external hosts, queue pairs to them, their regions and their work make sense. */
export function checkExternal(scenario: Scenario): void {
  const { hosts, queuePairs, regions, operations, events, replay } = scenario;
  const external = hosts.filter((host) => host.external !== undefined);
  if (external.length > 1)
    throw invalid('hosts[1].external', 'both hosts are external', 'one that is simulated');
  const name = external[0]?.name;
  queuePairs.forEach(({ remote, srqs }, i) => {
    const path = `queuePairs[${i}]`;
    if ((remote !== undefined) !== (name !== undefined))
      throw invalid(`${path}.remote`, ...given(name, 'the QPN and first PSN of its other end'));
    if (name !== undefined && srqs.length > 0)
      throw invalid(`${path}.srqs`, 'shared receive queues have no program here', 'none');
  });
  regions.forEach(({ host, remote }, i) => {
    const isThere = host === name;
    if ((remote !== undefined) !== isThere)
      throw invalid(
        `regions[${i}].remote`,
        ...given(isThere ? name : undefined, 'its address and rkey'),
      );
  });
  if (name === undefined) return;
  if (replay) throw invalid('replay', `host '${name}' replays nothing`, 'two simulated hosts');
  operations.forEach(({ from, kind, target, source, invalidates }, i) => {
    const path = `operations[${i}]`;
    if (from === name && !consumesReceive(kind)) {
      throw invalid(
        `${path}.from`,
        `host '${name}' does that by itself, and nobody here learns of it`,
        'an operation that consumes receives, or one of the other host',
      );
    }
    if (target.window !== null || source.window !== null || invalidates !== null)
      throw invalid(path, 'windows of external hosts are not known', 'regions');
  });
  if (events.length > 0)
    throw invalid(
      'events',
      'events have no program here',
      'none; control clients have commands for some',
    );
}

/** What is wrong with a `remote` that is there or not there: message and expectation. */
function given(external: string | undefined, what: string): [message: string, expected: string] {
  return external === undefined
    ? ['there is no external host at the other end', 'nothing']
    : [`host '${external}' is external`, what];
}
