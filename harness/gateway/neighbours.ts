/**
 * Who is on the link: LID <-> IP address <-> MAC, and what waits until a MAC is known.
 *
 * In the world a port is a LID; here each LID stands for an address vector: an IP address and what
 * goes into the headers beside it. A LID is told, never made up (`intake.ts` does that); a MAC is
 * asked for by ARP or neighbour discovery and learnt from whoever says it. There is no router: every
 * address is on this link. What was learnt stays until it is contradicted.
 */
import { NEVER, SEC, type TimePs } from '../../transport/index.ts';
import { sameBytes } from './addresses.ts';

/** Time between two questions, and how many there are before what waits is given up. */
const ASK_EVERY_PS: TimePs = 1 * SEC;
const ASKS = 3;
/** Packets that wait for one address at most (Linux: unres_qlen_bytes, about as many). */
const WAITING_PACKETS = 128;

/** What a LID stands for. */
export interface Route {
  readonly lid: number;
  readonly ip: Uint8Array;
  readonly trafficClass: number;
  readonly hopLimit: number;
  readonly flowLabel: number;
}

/** An address on the link, whoever it belongs to. */
interface Station {
  readonly ip: Uint8Array;
  mac: Uint8Array | undefined;
  /** Packets for it, as pool frames, oldest first. */
  waiting: number[];
  asksLeft: number;
  /** When it is asked again or given up; NEVER while nothing is open. */
  nextPs: TimePs;
}

export interface NeighbourEvents {
  /** Nobody has said yet who has `ip`. */
  ask(ip: Uint8Array, now: TimePs): void;
  /** The way of `frame` is known now. */
  send(frame: number, now: TimePs): void;
  /** `frame` is lost: too many wait, or nobody answers. */
  giveUp(frame: number): void;
}

export class Neighbours {
  private readonly routes = new Map<number, Route>();
  private readonly stations: Station[] = [];

  constructor(private readonly events: NeighbourEvents) {}

  /** What `lid` stands for. */
  routeOf(lid: number): Route | undefined {
    return this.routes.get(lid);
  }

  /** The first LID whose address this is; 0 where it has none. */
  lidOf(ip: Uint8Array): number {
    for (const route of this.routes.values()) if (sameBytes(route.ip, ip)) return route.lid;
    return 0;
  }

  /** The MAC of `ip`, if it is known. */
  macOf(ip: Uint8Array): Uint8Array | undefined {
    return this.find(ip)?.mac;
  }

  /** Takes over what a LID stands for, and asks who has its address unless `mac` says it. */
  add(route: Route, mac: Uint8Array | undefined, now: TimePs): void {
    this.routes.set(route.lid, route);
    const station = this.stationOf(route.ip);
    if (mac !== undefined) this.resolve(station, mac, now);
    else if (station.mac === undefined) this.begin(station, now);
  }

  /** Somebody has said that `mac` has `ip`; of strangers nothing is kept. */
  learn(ip: Uint8Array, mac: Uint8Array, now: TimePs): void {
    const station = this.find(ip);
    if (station !== undefined) this.resolve(station, mac, now);
  }

  /** Keeps a packet until the MAC of `ip` is known. */
  hold(ip: Uint8Array, frame: number, now: TimePs): void {
    const station = this.stationOf(ip);
    if (station.waiting.length === WAITING_PACKETS) {
      this.events.giveUp(frame);
      return;
    }
    station.waiting.push(frame);
    this.begin(station, now);
  }

  /** When `tick` has something to do next. */
  get nextPs(): TimePs {
    let next = NEVER;
    for (const { nextPs } of this.stations) if (nextPs < next) next = nextPs;
    return next;
  }

  /** Asks again, or gives up what waits. */
  tick(now: TimePs): void {
    for (const station of this.stations) {
      if (station.nextPs > now) continue;
      if (station.asksLeft > 0) this.ask(station, now);
      else {
        station.nextPs = NEVER;
        for (const frame of station.waiting.splice(0)) this.events.giveUp(frame);
      }
    }
  }

  private find(ip: Uint8Array): Station | undefined {
    return this.stations.find((station) => sameBytes(station.ip, ip));
  }

  private stationOf(ip: Uint8Array): Station {
    const known = this.find(ip);
    if (known !== undefined) return known;
    const nextPs = NEVER;
    const station: Station = { ip, mac: undefined, waiting: [], asksLeft: 0, nextPs };
    this.stations.push(station);
    return station;
  }

  private begin(station: Station, now: TimePs): void {
    if (station.nextPs !== NEVER) return;
    station.asksLeft = ASKS;
    this.ask(station, now);
  }

  private ask(station: Station, now: TimePs): void {
    station.asksLeft--;
    station.nextPs = now + ASK_EVERY_PS;
    this.events.ask(station.ip, now);
  }

  private resolve(station: Station, mac: Uint8Array, now: TimePs): void {
    station.mac = mac;
    station.nextPs = NEVER;
    for (const frame of station.waiting.splice(0)) this.events.send(frame, now);
  }
}
