/**
 * The one place where wall-clock time enters a world: whatever comes from outside gets a simulated
 * time here, once, and goes to the node that it is for.
 *
 * From here on everything follows from the inputs and their times. A *recording* is those inputs, in
 * order (`recording.ts`), and feeding it in again gives the same world. LIDs are given here as well,
 * in the order in which addresses are first used, so they too are the same every time.
 */
import { type TimePs, US } from '../../transport/index.ts';
import { ipText, isUnicast, parseIp, parseMac } from './addresses.ts';
import type { ControlHost } from './control-host.ts';
import { type Command, parseLine } from './control-protocol.ts';
import type { ExternalPeer } from './external-peer.ts';
import type { Route } from './neighbours.ts';

/** LIDs from here on are given to addresses; those below belong to the hosts of the scenario. */
const FIRST_LID = 16;
/** The last unicast LID (IBTA 4.1.3). */
const LAST_LID = 0xbfff;

/** One thing that came from outside. */
export type Arrival =
  | { readonly timePs: TimePs; readonly frame: Uint8Array }
  | { readonly timePs: TimePs; readonly client: number; readonly line: string }
  | { readonly timePs: TimePs; readonly client: number; readonly gone: true };

export class Arrivals {
  private readonly lids = new Map<string, number>();
  private lastPs: TimePs = 0;

  constructor(
    private readonly edge: ExternalPeer,
    private readonly control: ControlHost,
  ) {}

  /**
   * The time for something that comes now, at `wallPs` since the start, when the world has reached
   * `reachedPs`: later than everything that came before, and never in the world's past.
   */
  stamp(wallPs: TimePs, reachedPs: TimePs): TimePs {
    this.lastPs = Math.max(this.lastPs + 1, wallPs, reachedPs);
    return this.lastPs;
  }

  /** Feeds in something whose time is known. A line has to be a sound command. */
  feed(arrival: Arrival): void {
    if ('frame' in arrival) this.edge.arrive(arrival.timePs, arrival.frame);
    else if ('gone' in arrival) this.control.leave(arrival.timePs, arrival.client);
    else {
      const parsed = parseLine(arrival.line);
      if ('command' in parsed) this.command(arrival.timePs, arrival.client, parsed.command);
    }
  }

  private command(timePs: TimePs, client: number, command: Command): void {
    let lid = 0;
    if ('gid' in command && command.gid !== undefined) {
      const route = this.routeOf(command.gid, command);
      if (route !== undefined) {
        lid = route.lid;
        this.edge.addRoute(timePs, route, parseMac(command.mac ?? ''));
      }
    }
    if (command.verb === 'impair') {
      const { direction, reorderUs, ...spec } = command;
      this.edge.impair(timePs, direction, { ...spec, reorderPs: reorderUs * US });
    }
    this.control.submit(timePs, client, { command, lid });
  }

  /**
   * The LID of an address vector, a new one for each that differs; undefined where nothing on this
   * link can be reached by it.
   */
  private routeOf(
    gid: string,
    { hop, tclass, flow }: { hop: number; tclass: number; flow: number },
  ): Route | undefined {
    const ip = parseIp(gid);
    if (ip === undefined || !isUnicast(ip) || this.edge.isOwn(ip)) return undefined;
    const key = `${ipText(ip)} ${hop} ${tclass} ${flow}`;
    const lid = this.lids.get(key) ?? FIRST_LID + this.lids.size;
    if (lid > LAST_LID) return undefined;
    this.lids.set(key, lid);
    return { lid, ip, trafficClass: tclass, hopLimit: hop, flowLabel: flow };
  }
}
