/**
 * The stage of experiments on memory that is shared across hosts: host a owns a segment, processes of host
 * b share it, each over a connection of its own.
 *
 * Programs run on their own host and meet by the clock (`until`).
 */
import { FIRST_QPN } from '../../hca/index.ts';
import {
  FabricChannel,
  type Host,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  RemoteSegment,
  type RemoteSharer,
  type RevocationPlan,
  RevocationServer,
  type Sim,
  Xpmem,
} from '../../kernel/index.ts';
import { MS, type TimePs } from '../../transport/index.ts';
import { Stage, type StageOptions } from './stage.ts';

/** Where the owner has its segment. */
export const SEGMENT = 0x7e0000000000;
/** When connections stand, and when all have attached and programs begin; long after set-up is over. */
const CONNECTED: TimePs = 60 * MS;
export const START: TimePs = 70 * MS;

/** Enough for sixteen sharers; each owner's frame is an entry in the table of its adapter. */
const HOST = { cpus: 4, verify: false, memoryBytes: 16 * 2 ** 20 };

export interface SharingPlan extends RevocationPlan, Pick<StageOptions, 'seed' | 'wire'> {
  readonly pages: number;
  readonly sharers: number;
  /** Pages of each sharer's RDMA buffer. */
  readonly bufferPages: number;
  /** Local ACK time-out (code of verbs) and retries of the connections. */
  readonly timeout?: number;
  readonly retryCnt?: number;
}

/** What the owner has. */
export interface Owner {
  readonly host: Host;
  readonly xpmem: Xpmem;
  readonly ends: readonly RemoteSharer[];
  /** What the sharers have; only to be looked at from here. */
  readonly segments: readonly RemoteSegment[];
}

/** Sleeps until `timePs`. */
export function until(host: Host, timePs: TimePs): Sim<void> {
  return host.sleep(Math.max(0, timePs - host.node.now));
}

/** Runs `owner` on host a and `sharer` on host b for each sharer, from START on. */
export function runSharing(
  plan: SharingPlan,
  owner: (owner: Owner) => Sim<void>,
  sharer: (segment: RemoteSegment, host: Host, index: number) => Sim<void>,
): void {
  const { pages, sharers, bufferPages, seed = 1, wire = {}, form = 'batch' } = plan;
  const { timeout = 12, retryCnt = 7 } = plan;
  const stage = new Stage({ hosts: 2, seed, wire, host: HOST });
  const { host: a, peer: b } = stage;
  const peer = (lid: number, i: number) => ({ lid, qpn: FIRST_QPN + i, timeout, retryCnt });
  const segments: RemoteSegment[] = [];
  stage.run(
    (function* (): Sim<void> {
      yield* a.mm.mmap(SEGMENT, pages * PAGE_BYTES, PROT_READ | PROT_WRITE);
      const xpmem = yield* Xpmem.load(a.ram);
      yield* xpmem.make(a.mm, SEGMENT, pages * PAGE_BYTES);
      const { verbs } = a.createProcess('xpmemd');
      const server = yield* RevocationServer.start(
        verbs,
        (id, write) => xpmem.lookUp(id, write),
        plan,
      );
      const ends: RemoteSharer[] = [];
      for (let i = 0; i < sharers; i++) {
        const end = yield* server.accept(`sharer ${i}`);
        yield* end.channel.connect(peer(2, i));
        ends.push(end);
      }
      yield* until(a, START);
      yield* owner({ host: a, xpmem, ends, segments });
    })(),
    (function* (): Sim<void> {
      const channels: FabricChannel[] = [];
      const dataBytes = bufferPages * PAGE_BYTES;
      for (let i = 0; i < sharers; i++) {
        const { verbs } = b.createProcess(`sharer ${i}`);
        const channel = yield* FabricChannel.open(verbs, { name: `owner of ${i}`, dataBytes });
        yield* channel.connect(peer(1, i));
        channels.push(channel);
      }
      yield* until(b, CONNECTED);
      // The first segment that an owner makes is number 1.
      for (const channel of channels) {
        segments.push(yield* RemoteSegment.attach(channel, 1, true, form));
      }
      yield* until(b, START);
      const threads = segments.map((segment, i) => b.spawn(`sharer ${i}`, sharer(segment, b, i)));
      for (const thread of threads) yield thread.done;
    })(),
  );
}
