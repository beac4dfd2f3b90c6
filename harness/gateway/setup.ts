/**
 * How a gateway is set up: what its options say about the world, on top of the scenario.
 *
 * A recording keeps it, because the same inputs into another set-up would give another world.
 */
import { z } from 'zod';
import { type IcrcRule, rxeIcrcRules } from '../../transport/index.ts';
import { modes, type Scenario } from '../scenario/schema.ts';
import { linkLocalOf, parseIp, parseMac } from './addresses.ts';
import type { PortAddresses } from './internet.ts';

/** What is known of the other end: that it follows the specification, or that it is Linux's rxe. */
export const peerKinds = ['spec', 'rxe'] as const;
export type PeerKind = (typeof peerKinds)[number];

const DEFAULT_MAC = '02:00:00:00:00:09';
const DEFAULT_IPV4 = '192.0.2.9';
/** The MTU of an Ethernet that nobody has changed. */
const DEFAULT_MTU = 1500;
/** What an Ethernet carries at most in one frame: jumbo frames. */
export const MAX_MTU = 9216;
/** What Linux's rxe takes off the MTU before it rounds down to a path MTU (RXE_MAX_HDR_LENGTH). */
const HEADROOM_BYTES = 80;

export const setupSchema = z.strictObject({
  seed: z.int().min(0).max(0xffffffff).default(1),
  mode: z.enum(modes as ['pinned', 'odp']).default('pinned'),
  mac: z
    .string()
    .refine((text) => parseMac(text) !== undefined)
    .default(DEFAULT_MAC),
  ipv4: z
    .string()
    .refine((text) => parseIp(text)?.length === 4)
    .default(DEFAULT_IPV4),
  /** The link-local address that follows from the MAC when left out. */
  ipv6: z
    .string()
    .refine((text) => parseIp(text)?.length === 16)
    .optional(),
  mtu: z.int().min(576).max(MAX_MTU).default(DEFAULT_MTU),
  /** An adapter profile; the scenario's when left out. */
  profile: z.string().optional(),
  peer: z.enum(peerKinds).default('spec'),
});

export type GatewaySetup = z.output<typeof setupSchema>;

/** The addresses that a set-up gives to our port. */
export function addressesOf({ mac, ipv4, ipv6 }: GatewaySetup): PortAddresses {
  const macBytes = parseMac(mac) as Uint8Array;
  return {
    mac: macBytes,
    ipv4: parseIp(ipv4) as Uint8Array,
    ipv6: ipv6 === undefined ? linkLocalOf(macBytes) : (parseIp(ipv6) as Uint8Array),
  };
}

/** The largest path MTU that fits the Ethernet MTU, as Linux computes it. */
export function activeMtuOf({ mtu }: GatewaySetup): number {
  return [4096, 2048, 1024, 512].find((bytes) => bytes + HEADROOM_BYTES <= mtu) ?? 256;
}

/** The departures of the peer that the edge has to know of. */
export function icrcRulesOf({ peer }: GatewaySetup): readonly IcrcRule[] {
  return peer === 'rxe' ? rxeIcrcRules : [];
}

/** The scenario with the adapter profile of the set-up. */
export function withSetup(scenario: Scenario, { profile }: GatewaySetup): Scenario {
  if (profile === undefined) return scenario;
  const hosts = scenario.hosts.map((host) => (host.external ? host : { ...host, profile }));
  return { ...scenario, hosts };
}

/** A set-up without options. */
export const defaultSetup: GatewaySetup = setupSchema.parse({});
