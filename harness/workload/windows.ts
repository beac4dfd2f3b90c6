/**
 * The memory windows of a scenario on one host: allocated, bound by work requests of the queue pair
 * they are for, and described to the peer with the key of their latest binding.
 */
import { type Host, type MemoryWindow, nextRkey, type Sim } from '../../kernel/index.ts';
import { SEND_SIGNALED, WR_BIND_MW, WR_LOCAL_INV } from '../../transport/index.ts';
import type { Scenario, WindowSpec } from '../scenario/schema.ts';
import { accessOf, type Buffers } from './buffers.ts';
import type { Endpoint } from './endpoint.ts';
import { Gate } from './gate.ts';

/** One window of the scenario as one host sees it: its own, or the peer's. */
export class Window extends Gate {
  own: MemoryWindow | undefined;

  constructor(
    readonly spec: WindowSpec,
    index: number,
  ) {
    super(index, `window ${spec.name}`, 0);
  }
}

export class Windows {
  readonly all: readonly Window[];
  private readonly byName: ReadonlyMap<string, Window>;

  constructor(
    private readonly host: Host,
    private readonly endpoint: Endpoint,
    private readonly buffers: Buffers,
    { windows }: Scenario,
  ) {
    const first = buffers.all.length;
    this.all = windows.map((spec, i) => new Window(spec, first + i));
    this.byName = new Map(this.all.map((window) => [window.spec.name, window]));
  }

  /** Those of this host's regions. */
  get own(): readonly Window[] {
    return this.all.filter(({ spec }) => this.buffers.own.some((b) => b.spec.name === spec.region));
  }

  named(name: string): Window {
    return this.byName.get(name) as Window;
  }

  /** Allocates a window and binds it. */
  *create(window: Window): Sim<void> {
    window.own = yield* this.host.verbs.allocMw(this.endpoint.pd);
    yield* this.bind(window);
  }

  /** Binds a window that is not bound, with its next key. */
  *bind(window: Window): Sim<void> {
    const { spec } = window;
    const own = window.own as MemoryWindow;
    const { address, lkey, spec: region } = this.buffers.named(spec.region);
    const length = spec.lengthBytes ?? region.sizeBytes - spec.offsetBytes;
    const rkey = nextRkey(own.rkey);
    yield* this.endpoint.perform(spec.queuePair, `binding window ${spec.name}`, {
      opcode: WR_BIND_MW,
      flags: SEND_SIGNALED,
      rkey,
      sges: [{ address: address + spec.offsetBytes, length, lkey }],
      bindAccess: accessOf(spec.access),
    });
    own.rkey = rkey;
    window.rkey = rkey;
  }

  /** Takes the key of a window back and binds it again. */
  *rebind(window: Window): Sim<void> {
    yield* this.endpoint.perform(window.spec.queuePair, `invalidating ${window.spec.name}`, {
      opcode: WR_LOCAL_INV,
      flags: SEND_SIGNALED,
      invalidateRkey: window.rkey,
    });
    yield* this.bind(window);
  }

  /** The window of this host that has the key `rkey`. */
  withKey(rkey: number): Window | undefined {
    return this.own.find((window) => window.rkey >>> 0 === rkey >>> 0);
  }
}
