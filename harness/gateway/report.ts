/**
 * What a gateway says when it ends: `--json` prints it as it is, without it people get the main lines.
 * docs/GATEWAY.md describes the fields.
 */
import { combineDigests, Failure, NS } from '../../transport/index.ts';
import type { Scenario } from '../scenario/schema.ts';
import { scenarioHash } from '../scenario/validate.ts';
import { formatCount } from '../stats/format.ts';
import { ipText } from './addresses.ts';
import type { LiveOutcome } from './live.ts';
import { addressesOf, type GatewaySetup } from './setup.ts';

/** The final report as plain data. */
export function gatewayReport(
  { name, ...rest }: Scenario,
  setup: GatewaySetup,
  outcome: LiveOutcome,
): Record<string, unknown> {
  const { reports, error } = outcome;
  const { mac, ipv4, ipv6, seed, mode } = { ...setup, ...textsOf(setup) };
  const adapter = reports.find(({ hca }) => hca)?.hca;
  const host = reports.find((report) => report.host)?.host;
  const workload = reports.find((report) => report.workload)?.workload;
  return {
    scenario: name,
    scenario_hash: scenarioHash({ name, ...rest }),
    seed,
    mode,
    digest: digestOf(outcome),
    ending: outcome.ending,
    seconds: outcome.wallSeconds,
    simulated_ns: outcome.simulatedPs / NS,
    lag: outcome.lag,
    addresses: { mac, ipv4, ipv6 },
    wire: outcome.wire,
    edge: reports.find(({ edge }) => edge)?.edge,
    control: outcome.control ?? null,
    adapter: adapter?.counters,
    queue_pairs: adapter?.queuePairs,
    regions: host?.regions.map(({ mrn, length, registration, registered, counters }) => ({
      mrn,
      length,
      registration,
      registered,
      ...counters,
    })),
    workload: workload && {
      operations: workload.operations,
      planned: workload.planned,
      bytes: workload.bytes,
      finished: workload.finished,
    },
    error: error === undefined ? null : errorOf(error),
  };
}

/** The main lines for people. */
export function gatewayText(outcome: LiveOutcome): string {
  const { wire, lag, control, reports, wallSeconds } = outcome;
  const edge = reports.find((report) => report.edge)?.edge;
  const adapter = reports.find(({ hca }) => hca)?.hca?.counters ?? {};
  const counts = (...pairs: [label: string, value: number | undefined][]): string =>
    pairs.map(([label, value = 0]) => `${label} ${formatCount(value)}`).join(', ');
  return [
    `${wallSeconds.toFixed(1)} s, ended by ${outcome.ending}`,
    `wire      ${counts(['frames in', wire.frames_received], ['out', wire.frames_sent], ['dropped', wire.frames_dropped], ['peers', wire.peers_connected], ['refused', wire.peers_refused])}`,
    `edge      ${counts(['RoCE in', edge?.roce_in], ['out', edge?.roce_out], ['bad ICRC', edge?.bad_icrc], ['malformed', edge?.malformed])}`,
    `adapter   ${counts(['RNR NAKs sent', adapter.rnr_naks_sent], ['retransmitted', adapter.retransmitted_packets], ['time-outs', adapter.local_ack_timeout_err])}`,
    ...(control
      ? [
          `control   ${counts(['clients', control.clients], ['commands', control.commands], ['errors', control.errors], ['bad lines', control.bad_lines])}`,
        ]
      : []),
    `real time ${lag.times === 0 ? 'kept' : `fell behind ${formatCount(lag.times)} times`}, at most ${lag.max_ms} ms late`,
    `digest    ${digestOf(outcome)}`,
  ].join('\n');
}

function digestOf({ reports }: LiveOutcome): string {
  return combineDigests(new Map(reports.map(({ node, digest }) => [node, digest])));
}

function textsOf(setup: GatewaySetup): { ipv6: string } {
  return { ipv6: ipText(addressesOf(setup).ipv6) };
}

function errorOf(error: unknown): Record<string, string> {
  if (error instanceof Failure) return { code: error.code, message: error.explain() };
  const message = error instanceof Error ? error.message : String(error);
  return {
    code: error instanceof Error && error.name === 'Interrupted' ? 'interrupted' : 'E_BUG',
    message,
  };
}
