/**
 * The port of a simulated host on a real Ethernet: the node at the edge of the world, the control
 * clients inside it, and the one place through which both get their inputs.
 *
 * Owns nothing that lives outside the world; `live.ts` and `replay.ts` feed it.
 */
import type { Hca } from '../../hca/index.ts';
import type { Host } from '../../kernel/index.ts';
import { type FramePool, formatMac } from '../../transport/index.ts';
import type { HostSpec, LinkSpec, Scenario } from '../scenario/schema.ts';
import { gidText, parseIp, parseMac } from './addresses.ts';
import { Arrivals } from './arrivals.ts';
import { ControlHost } from './control-host.ts';
import { ExternalPeer } from './external-peer.ts';
import { activeMtuOf, addressesOf, type GatewaySetup, icrcRulesOf } from './setup.ts';

const DEFAULT_HOP_LIMIT = 64;

export class EthernetPort {
  readonly edge: ExternalPeer;
  private readonly memoryBytes: number;
  private served: { readonly control: ControlHost; readonly arrivals: Arrivals } | undefined;

  /** `scenario` has one external host. */
  constructor(
    scenario: Scenario,
    private readonly setup: GatewaySetup,
    seed: number,
    pool: FramePool,
  ) {
    const index = scenario.hosts.findIndex(({ external }) => external !== undefined);
    const { name, external } = scenario.hosts[index] as HostSpec;
    const { latencyPs, rateGbps } = scenario.links[0] as LinkSpec;
    const lidOf = (host: number): number => host + 1;
    this.memoryBytes = scenario.hosts[1 - index]?.memoryBytes ?? 0;
    this.edge = new ExternalPeer(
      {
        name,
        seed,
        latencyPs,
        rateGbps,
        mtuBytes: setup.mtu,
        own: addressesOf(setup),
        lid: lidOf(1 - index),
        icrcRules: icrcRulesOf(setup),
      },
      pool,
    );
    // Queue pairs of the scenario reach the external host by the LID of its place there.
    if (scenario.queuePairs.length > 0 && external) {
      const ip = parseIp(external.ip) as Uint8Array;
      const path = { trafficClass: 0, hopLimit: DEFAULT_HOP_LIMIT, flowLabel: 0 };
      this.edge.addRoute(1, { lid: lidOf(index), ip, ...path }, parseMac(external.mac ?? ''));
    }
  }

  /** Lets control clients work with `host` and its adapter. */
  serve(host: Host, hca: Hca): void {
    const { setup, edge } = this;
    const { mac, ipv4, ipv6 } = addressesOf(setup);
    const control = new ControlHost(host, {
      gids: { ipv4: gidText(ipv4), ipv6: gidText(ipv6) },
      mac: formatMac(mac),
      activeMtu: activeMtuOf(setup),
      memoryBytes: this.memoryBytes,
      counters: () => ({
        adapter: moved(hca.report().counters),
        edge: moved({ ...edge.counters }),
      }),
    });
    this.served = { control, arrivals: new Arrivals(edge, control) };
  }

  get control(): ControlHost {
    return (this.served as { control: ControlHost }).control;
  }

  get arrivals(): Arrivals {
    return (this.served as { arrivals: Arrivals }).arrivals;
  }
}

/** Counters that are not zero. */
function moved(counters: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(counters).filter(([, value]) => value !== 0));
}
