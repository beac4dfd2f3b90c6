/**
 * Runs a recorded gateway session again: the same inputs at the same times, without sockets or clock.
 */
import { Failure } from '../../transport/index.ts';
import type { Outcome } from '../report.ts';
import type { RunHooks } from '../run.ts';
import type { Scenario } from '../scenario/schema.ts';
import { scenarioHash } from '../scenario/validate.ts';
import { World } from '../world.ts';
import type { EthernetPort } from './ethernet-port.ts';
import type { EdgeObserver } from './external-peer.ts';
import type { Recording } from './recording.ts';
import { withSetup } from './setup.ts';

/** Events between two turns of the event loop, so that Ctrl-C works. */
const SLICE_EVENTS = 20_000;
/** Inputs that are fed in before the world runs up to the last of them. */
const BATCH_INPUTS = 256;

/** The scenario as the recorded session ran it. @throws Failure E_ARRIVALS_INVALID */
export function recordedScenario(scenario: Scenario, { head }: Recording, file: string): Scenario {
  const resolved = withSetup(scenario, head.setup);
  if (scenarioHash(resolved) === head.scenarioHash) return resolved;
  throw new Failure(
    'E_ARRIVALS_INVALID',
    `recorded with another scenario ('${head.scenario}', ${head.scenarioHash})`,
    `${file}:1`,
    `'${scenario.name}', ${scenarioHash(resolved)}`,
  );
}

/** Runs `recording` to its end; what happens on the way is in the outcome. */
export async function replay(
  scenario: Scenario,
  recording: Recording,
  hooks: RunHooks & { readonly observer?: EdgeObserver } = {},
): Promise<Outcome> {
  const startMs = performance.now();
  const { setup } = recording.head;
  const { mode, seed } = setup;
  const world = new World({ scenario, mode, seed, setup });
  const { edge, arrivals } = world.ethernet as EthernetPort;
  edge.observer = hooks.observer;
  const runTo = async (untilPs: number): Promise<void> => {
    for (let more = true; more; ) {
      hooks.signal?.throwIfAborted();
      more = world.partition.advance(SLICE_EVENTS, untilPs);
      hooks.onProgress?.({ simulatedPs: world.nowPs, ...world.progress });
      if (more) await new Promise<void>((resolve) => setImmediate(resolve));
    }
  };
  let error: unknown;
  try {
    let count = 0;
    let endPs = 0;
    for await (const input of recording.inputs()) {
      endPs = input.timePs;
      if ('end' in input) break;
      arrivals.feed(input);
      if (++count % BATCH_INPUTS === 0) await runTo(input.timePs);
      // Without an end, its last input is the last thing that happens.
      endPs++;
    }
    await runTo(endPs);
  } catch (problem) {
    error = problem;
  }
  const wallSeconds = (performance.now() - startMs) / 1000;
  return { reports: world.report(), windows: 0, wallSeconds, error };
}
