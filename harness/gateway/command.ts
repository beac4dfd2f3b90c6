/**
 * `faultline gateway`: from the options of the command line to a gateway at work, and its report.
 */
import { profiles } from '../../hca/index.ts';
import { usage } from '../arguments.ts';
import { reportError } from '../exit.ts';
import { nearest } from '../nearest.ts';
import { loadScenario } from '../scenario/load.ts';
import type { Mode, Scenario } from '../scenario/schema.ts';
import { writeOut } from '../standard-output.ts';
import { hasExternalHost, nodeNames } from '../world.ts';
import { ipText, parseIp, parseMac } from './addresses.ts';
import { GatewayCapture } from './capture.ts';
import { runLive } from './live.ts';
import { gatewayReport, gatewayText } from './report.ts';
import {
  type GatewaySetup,
  MAX_MTU,
  type PeerKind,
  peerKinds,
  setupSchema,
  withSetup,
} from './setup.ts';

/** The scenario of a gateway that is given none. */
const DEFAULT_SCENARIO = 'gateway';

export interface GatewayOptions {
  readonly listen?: string;
  readonly connect?: string;
  readonly control?: string;
  readonly scenario?: string;
  readonly record?: string;
  readonly pcap?: string;
  readonly duration?: number;
  readonly seed: number;
  readonly mode: Mode;
  readonly mac?: string;
  readonly ipv4?: string;
  readonly ipv6?: string;
  readonly mtu?: number;
  readonly profile?: string;
  readonly peer?: PeerKind;
  readonly json?: boolean;
}

/** Runs a gateway; returns the exit status. @throws Failure for what is wrong before it begins */
export async function gateway(options: GatewayOptions, signal: AbortSignal): Promise<number> {
  if ((options.listen === undefined) === (options.connect === undefined)) {
    const problem = 'a gateway listens or connects';
    throw usage('--listen', problem, '--listen or --connect, and not both');
  }
  const setup = setupOf(options);
  const scenario = withSetup(await loadExternal(options.scenario ?? DEFAULT_SCENARIO), setup);
  const { listen, connect, control, record, duration } = options;
  const capture =
    options.pcap === undefined
      ? undefined
      : await GatewayCapture.create(options.pcap, endsOf(scenario));
  const outcome = await runLive({
    scenario,
    setup,
    signal,
    say: (line) => process.stderr.write(`faultline: ${line}\n`),
    ...(listen === undefined ? {} : { listen }),
    ...(connect === undefined ? {} : { connect }),
    ...(control === undefined ? {} : { control }),
    ...(record === undefined ? {} : { record }),
    ...(duration === undefined ? {} : { durationMs: duration }),
    ...(capture === undefined ? {} : { observer: capture }),
  });
  await capture?.close();
  const text = options.json
    ? JSON.stringify(gatewayReport(scenario, setup, outcome), null, 2)
    : gatewayText(outcome);
  await writeOut(`${text}\n`);
  return outcome.error === undefined ? 0 : reportError(outcome.error);
}

/** A scenario with an external host. @throws Failure E_USAGE and those of loadScenario */
async function loadExternal(name: string): Promise<Scenario> {
  const scenario = await loadScenario(name);
  if (hasExternalHost(scenario)) return scenario;
  const problem = `scenario '${scenario.name}' has no external host`;
  throw usage('--scenario', problem, "a host with 'external'");
}

/** The names of our end of the wire and of the other. */
export function endsOf(scenario: Scenario): [own: string, peer: string] {
  const names = nodeNames(scenario);
  const find = (suffix: string): string => names.find((name) => name.endsWith(suffix)) ?? suffix;
  return [find('.hca'), find('.wire')];
}

function setupOf({
  seed,
  mode,
  mac,
  ipv4,
  ipv6,
  mtu,
  profile,
  peer,
}: GatewayOptions): GatewaySetup {
  if (profile !== undefined && !Object.hasOwn(profiles, profile)) {
    const near = nearest(profile, Object.keys(profiles));
    const hint = near === undefined ? '' : `; did you mean '${near}'?`;
    const known = Object.keys(profiles).join(', ');
    throw usage('--profile', `there is no profile '${profile}'${hint}`, known);
  }
  const given = { seed, mode, mac, ipv4, ipv6, mtu, profile, peer };
  const chosen = Object.entries(given).filter(([, value]) => value !== undefined);
  return setupSchema.parse(Object.fromEntries(chosen));
}

/** Parsers of options; each returns the value or throws Failure E_USAGE. */
export function parseMacOption(text: string): string {
  if (parseMac(text) !== undefined) return text.toLowerCase();
  throw usage('--mac', `'${text}' is not a unicast MAC address`, 'such as 02:00:00:00:00:09');
}

export function parseIpv4Option(text: string): string {
  const ip = parseIp(text);
  if (ip?.length === 4) return ipText(ip);
  throw usage('--ipv4', `'${text}' is not an IPv4 address`, 'such as 192.0.2.9');
}

export function parseIpv6Option(text: string): string {
  const ip = parseIp(text);
  if (ip?.length === 16) return ipText(ip);
  throw usage('--ipv6', `'${text}' is not an IPv6 address`, 'such as fe80::ff:fe00:9');
}

export function parseMtuOption(text: string): number {
  const mtu = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (mtu >= 576 && mtu <= MAX_MTU) return mtu;
  throw usage('--mtu', `'${text}' is not an Ethernet MTU`, `an integer from 576 to ${MAX_MTU}`);
}

export function parsePeerOption(text: string): PeerKind {
  const kind = peerKinds.find((candidate) => candidate === text);
  if (kind !== undefined) return kind;
  throw usage('--peer', `'${text}' is not known`, peerKinds.join(' or '));
}

/** Seconds on the command line, milliseconds inside. */
export function parseDurationOption(text: string): number {
  const seconds = text.trim() === '' ? Number.NaN : Number(text);
  if (seconds > 0 && seconds <= 9000) return Math.max(1, Math.round(seconds * 1000));
  throw usage('--duration', `'${text}' is not a number of seconds`, 'up to 9000');
}
