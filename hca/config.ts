/** What an adapter is made from, and what its port is to the queue pairs behind it. */
import type { LinkLayer, TimePs, WireFaults, WireTap } from '../transport/index.ts';
import type { HcaProfile } from './profile.ts';

export interface HcaConfig {
  /** Name of the host; the node is called `<name>.hca`. */
  readonly name: string;
  readonly seed: number;
  readonly profile: HcaProfile;
  /** Local identifier of the port, from 1. */
  readonly lid: number;
  readonly wire: {
    /** 10^9 bits per second. */
    readonly rateGbps: number;
    /** One-way propagation, ps: the lookahead between adapters. */
    readonly latencyPs: TimePs;
    /** What carries packets; decides how many bytes one takes. InfiniBand when left out. */
    readonly linkLayer?: LinkLayer;
  } & WireFaults;
  /** Whether consecutive packets may travel as one frame; changes speed only. */
  readonly trains: boolean;
  /**
   * Whether the suspend and resume of a protection domain are announced to the peers of its queue
   * pairs, and those of peers understood; 'silent', as today's adapters, when left out.
   */
  readonly pdSuspend?: 'silent' | 'announced';
  /** Hears every packet that the port sends. */
  readonly tap?: WireTap;
  /** The partition key table of the port; only the default partition when left out. */
  readonly pkeys?: readonly number[];
  /** The most payload that a packet of the port may have (active_mtu); 4096 when left out. */
  readonly portMtu?: number;
}

/** The port as queue pairs see it. */
export interface PortAttributes {
  readonly lid: number;
  readonly pkeys: readonly number[];
  /** active_mtu in bytes: the longest datagram, and the largest path MTU. */
  readonly mtu: number;
  /** Whether suspends of protection domains are announced to peers, and theirs are known. */
  readonly announcesSuspend: boolean;
}
