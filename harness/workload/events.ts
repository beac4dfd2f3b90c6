/**
 * What happens to a host's memory and driver at given times of a scripted scenario.
 *
 * Memory pressure, suspends and prefetches run into whatever traffic there is. An event that replaces
 * memory must not: no program unmaps a buffer that is in use. So the region is closed on both sides
 * first (PAUSE, PAUSED), and opened with a new ADVERT.
 */
import {
  Completion,
  type Host,
  type Sim,
  type Thread,
  VerbsError,
  wait,
} from '../../kernel/index.ts';
import { ADVICE_PREFETCH_WRITE, ADVISE_FLUSH, assert, type TimePs } from '../../transport/index.ts';
import type { EventSpec } from '../scenario/schema.ts';
import { type Buffer, type Buffers, mappedBytes } from './buffers.ts';
import { addressWords, CONTROL_ADVERT, CONTROL_PAUSE, CONTROL_PAUSED } from './control-message.ts';
import type { Endpoint } from './endpoint.ts';
import type { Gate } from './gate.ts';
import { PAGE_BYTES } from './layout.ts';
import type { Window, Windows } from './windows.ts';

export class Events {
  private startPs: TimePs = 0;
  private readonly paused = new Map<number, Completion<void>>();

  constructor(
    private readonly host: Host,
    private readonly endpoint: Endpoint,
    private readonly buffers: Buffers,
    private readonly windows: Windows,
  ) {}

  /** Starts the events of this host, whose times count from `startPs`. Returns their threads. */
  start(events: readonly EventSpec[], startPs: TimePs): Thread[] {
    this.startPs = startPs;
    const threads = events
      .filter((event) => !replacesMemory(event))
      .map((event) => this.host.spawn(event.kind, this.happen(event)));
    const replacements = this.replaceAll(events.filter(replacesMemory));
    return [...threads, this.host.spawn('replacements', replacements)];
  }

  /** Opens a region or window of this host here and at the peer. */
  *open(gate: Gate): Sim<void> {
    gate.open.resolve();
    yield* this.endpoint.sendControl(CONTROL_ADVERT, [
      gate.index,
      gate.rkey,
      ...addressWords(gate.address),
    ]);
  }

  /** A message of the peer has invalidated a window: it is bound again, and the peer told. */
  onInvalidated(rkey: number): void {
    const window = this.windows.withKey(rkey);
    assert(window !== undefined, `key ${rkey} is of no window here`, this.host.node);
    this.host.spawn('rebind', this.bindAgain(window));
  }

  /** Takes in a control message about a region or window. */
  onControl(words: readonly number[]): void {
    const [kind, , index] = words as [number, number, number];
    const gate = this.buffers.all[index] ?? this.windows.all[index - this.buffers.all.length];
    if (kind === CONTROL_PAUSED) this.paused.get(index)?.resolve();
    else if (kind === CONTROL_ADVERT && gate) {
      gate.rkey = words[3] as number;
      gate.open.resolve();
    } else if (kind === CONTROL_PAUSE && gate) {
      gate.close();
      this.host.spawn('pause', this.pause(gate));
    }
  }

  private *happen(event: EventSpec): Sim<void> {
    const { host, endpoint } = this;
    yield* sleepUntil(host, this.startPs + event.atPs);
    switch (event.kind) {
      case 'reclaim':
        yield* host.ram.reclaim.shrink(Math.ceil(event.sizeBytes / PAGE_BYTES));
        return;
      case 'suspend':
        yield* host.verbs.suspendPd(endpoint.pd);
        yield* host.sleep(event.durationPs);
        yield* host.verbs.resumePd(endpoint.pd);
        return;
      case 'prefetch':
        yield* this.prefetch(event);
    }
  }

  /** An advice: what cannot be brought in, because it is being unmapped, is left to page faults. */
  private *prefetch(event: EventSpec & { kind: 'prefetch' }): Sim<void> {
    const buffer = this.buffers.named(event.region);
    if (!this.buffers.isOnDemand(buffer) || !buffer.region) return;
    const length = event.lengthBytes ?? buffer.spec.sizeBytes - event.offsetBytes;
    const address = buffer.address + event.offsetBytes;
    try {
      const { pd, lkey } = buffer.region;
      const range = { address, length, lkey };
      yield* this.host.verbs.adviseMr(pd, ADVICE_PREFETCH_WRITE, ADVISE_FLUSH, [range]);
    } catch (error) {
      if (!(error instanceof VerbsError)) throw error;
    }
  }

  /** Carries out events that replace memory or keys, one after the other, in order of time. */
  private *replaceAll(events: readonly EventSpec[]): Sim<void> {
    for (const event of [...events].sort((x, y) => x.atPs - y.atPs)) {
      yield* sleepUntil(this.host, this.startPs + event.atPs);
      if (event.kind === 'rebind') {
        const window = this.windows.named(event.window);
        yield* this.closeBoth(window);
        yield* this.windows.rebind(window);
        yield* this.open(window);
      } else if (event.kind === 'remap' || event.kind === 'dontneed') {
        const buffer = this.buffers.named(event.region);
        yield* this.closeBoth(buffer);
        yield* this.buffers.replace(buffer, this.endpoint.pd, this.change(event, buffer));
        yield* this.open(buffer);
      }
    }
  }

  /** Closes a gate here and at the peer; returns when nobody is behind it any more. */
  private *closeBoth(gate: Gate): Sim<void> {
    gate.close();
    const paused = new Completion<void>(`the peer to pause gate ${gate.index}`);
    this.paused.set(gate.index, paused);
    yield* this.endpoint.sendControl(CONTROL_PAUSE, [gate.index]);
    yield* gate.drain();
    yield* wait(paused);
  }

  private *bindAgain(window: Window): Sim<void> {
    yield* this.windows.bind(window);
    yield* this.open(window);
  }

  private *change(event: EventSpec, buffer: Buffer): Sim<void> {
    const { mm } = this.host;
    if (event.kind === 'remap') {
      yield* mm.munmap(buffer.address, mappedBytes(buffer));
      yield* mm.mmap(buffer.address, mappedBytes(buffer), 3);
    } else if (event.kind === 'dontneed') {
      const length = event.lengthBytes ?? buffer.spec.sizeBytes - event.offsetBytes;
      yield* mm.madviseDontneed(buffer.address + event.offsetBytes, length);
    }
  }

  private *pause(gate: Gate): Sim<void> {
    yield* gate.drain();
    yield* this.endpoint.sendControl(CONTROL_PAUSED, [gate.index]);
  }
}

/** Sleeps until the simulated time `atPs`; not at all when that is past. */
export function* sleepUntil(host: Host, atPs: TimePs): Sim<void> {
  const span = atPs - host.node.now;
  if (span > 0) yield* host.sleep(span);
}

function replacesMemory({ kind }: EventSpec): boolean {
  return kind === 'remap' || kind === 'dontneed' || kind === 'rebind';
}
