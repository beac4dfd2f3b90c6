/**
 * Moving registered memory to another node while a peer writes into it (S9): the ways of seed 000.
 *
 * One host writes small pieces into a region of the other without a pause, into all of it or into a sixteenth,
 * and the other moves that region. Look at the bytes lost (the copy by the CPU without the retry loses what the
 * adapter wrote meanwhile; with Gunthorpe's retry nothing, but a page that is written during each of its copies
 * may stay), and at how long the adapter was suspended: Bestler's
 * copy beforehand leaves only what was written last and the switch of the map, which is little where the peer
 * works on a part, and as much as before where it writes faster than the copy follows. The longest wait of the
 * peer is its ACK time-out wherever there was a suspend: it is silent, and drops what comes. Next to it what a
 * region on demand does, whose pages are just migrated: faults, and RNR waits.
 */
import {
  type Host,
  type MemoryRegion,
  type MoveMethod,
  type MoveReport,
  movePages,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type QueuePair,
  type Sim,
} from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_WRITE,
  assert,
  RandomStream,
  SEND_SIGNALED,
  type TimePs,
  US,
  WC_SUCCESS,
  WR_RDMA_WRITE,
} from '../../transport/index.ts';
import { connectRc } from './connect.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { Stage } from './stage.ts';

const PAGES = 256;
const BYTES = PAGES * PAGE_BYTES;
const BASE = 0x7f0000000000;
const RW = PROT_READ | PROT_WRITE;
const RIGHTS = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE;
/** LIDs of the two adapters. */
const [LID_A, LID_B] = [1, 2];
/** The peer's writes: so many bytes, and so many of them under way. */
const PIECE_BYTES = 256;
const IN_FLIGHT = 16;
/** The peer writes so long before the move begins, and after it has ended. */
const MARGIN_PS: TimePs = 200 * US;
/** Pages that the peer writes: all, or a part. */
const LOADS = [PAGES, PAGES / 16] as const;

const METHODS = ['unchecked', 'retry', 'suspend', 'precopy', 'on demand'] as const;
type Method = (typeof METHODS)[number];
/** Share of the pages that the retry has to catch, for the run to count as good. */
const RETRY_SHARE = 0.9;

interface Outcome {
  readonly report: Pick<MoveReport, 'movedPages' | 'copies' | 'suspendedPs' | 'totalPs'>;
  readonly writes: number;
  readonly lostBytes: number;
  /** The longest that the peer waited for the next completion, and while nothing moved. */
  readonly longestWaitPs: TimePs;
  readonly usualWaitPs: TimePs;
  readonly failures: number;
}

/** What both programs know. */
class Run {
  readonly stage: Stage;
  readonly expected = new Uint8Array(BYTES);
  readonly random: RandomStream;
  target: MemoryRegion | undefined;
  targetQpn = 0;
  writerQpn = 0;
  state: 'before' | 'moving' | 'after' | 'over' = 'before';
  report: Outcome['report'] | undefined;
  writes = 0;
  failures = 0;
  longestWaitPs = 0;
  usualWaitPs = 0;

  constructor(
    readonly method: Method,
    /** Pages of the region that the peer writes. */
    readonly writtenPages: number,
    seed: number,
  ) {
    this.random = new RandomStream(seed, 'experiment', 'live copy');
    this.stage = new Stage({
      hosts: 2,
      seed,
      profile: { dirtyTracking: true },
      host: { memoryBytes: 16 * BYTES, memoryNodes: 2 },
    });
  }

  /** The peer: writes pieces without a pause and notes how long it waits for each completion. */
  *writer(host: Host): Sim<void> {
    const { verbs, mm } = host;
    yield* mm.mmap(BASE, BYTES, RW);
    yield* mm.fill(BASE, BYTES, 1);
    const pd = yield* verbs.allocPd();
    const source = yield* verbs.regMr(pd, BASE, BYTES, RIGHTS);
    const qp = yield* makeQueuePair(host, pd);
    this.writerQpn = qp.qpn;
    while (this.target === undefined) yield* host.sleep(1 * US);
    yield* connectRc(host, qp, { destLid: LID_B, destQpn: this.targetQpn });
    let completed = 0;
    let lastPs = host.node.now;
    const complete = function* (run: Run): Sim<void> {
      const { status } = yield* qp.plan.sendCq.next();
      if (status !== WC_SUCCESS) run.failures++;
      completed++;
      run.note(host.node.now - lastPs);
      lastPs = host.node.now;
    };
    for (let value = 1; this.state !== 'over'; value++) {
      const at = this.random.below((this.writtenPages * PAGE_BYTES) / PIECE_BYTES) * PIECE_BYTES;
      const bytes = new Uint8Array(PIECE_BYTES).fill((value % 251) + 1);
      yield* mm.write(BASE + at, bytes);
      this.expected.set(bytes, at);
      yield* verbs.postSend(qp, {
        opcode: WR_RDMA_WRITE,
        wrId: value,
        flags: SEND_SIGNALED,
        sges: [{ address: BASE + at, length: PIECE_BYTES, lkey: source.lkey }],
        remoteAddress: BASE + at,
        rkey: this.target.rkey,
      });
      this.writes++;
      if (this.writes - completed >= IN_FLIGHT) yield* complete(this);
    }
    while (completed < this.writes) yield* complete(this);
  }

  /** The owner of the region: moves it to the other node. */
  *owner(host: Host): Sim<void> {
    const { verbs, mm } = host;
    yield* mm.mmap(BASE, BYTES, RW);
    yield* mm.write(BASE, new Uint8Array(BYTES));
    const pd = yield* verbs.allocPd();
    const access = RIGHTS | (this.method === 'on demand' ? ACCESS_ON_DEMAND : 0);
    const region = yield* verbs.regMr(pd, BASE, BYTES, access);
    const qp = yield* makeQueuePair(host, pd);
    while (this.writerQpn === 0) yield* host.sleep(1 * US);
    yield* connectRc(host, qp, { destLid: LID_A, destQpn: this.writerQpn });
    this.targetQpn = qp.qpn;
    this.target = region;
    yield* host.sleep(MARGIN_PS);
    this.state = 'moving';
    this.report =
      this.method === 'on demand'
        ? yield* this.migrate(host)
        : yield* verbs.moveMr(region, 1, this.method as MoveMethod);
    this.state = 'after';
    yield* host.sleep(MARGIN_PS);
    this.state = 'over';
  }

  private *migrate(host: Host): Sim<Outcome['report']> {
    const { now } = host.node;
    const addresses = Array.from({ length: PAGES }, (_, i) => BASE + i * PAGE_BYTES);
    const nodes = new Array<number>(PAGES).fill(1);
    const status = yield* movePages(host.mm.state, addresses, nodes);
    const movedPages = status.filter((node) => node === 1).length;
    return { movedPages, copies: movedPages, suspendedPs: 0, totalPs: host.node.now - now };
  }

  /** A wait of the peer: as usual before the move, or during it and its consequences. */
  private note(waitPs: TimePs): void {
    if (this.state === 'before') this.usualWaitPs = Math.max(this.usualWaitPs, waitPs);
    else this.longestWaitPs = Math.max(this.longestWaitPs, waitPs);
  }
}

function* makeQueuePair({ verbs }: Host, pd: number): Sim<QueuePair> {
  const cq = yield* verbs.createCq(64);
  return yield* verbs.createQp(pd, { sendCq: cq, recvCq: cq, maxSendWr: 64, maxRecvWr: 1 });
}

function measure(method: Method, writtenPages: number, seed: number): Outcome {
  const run = new Run(method, writtenPages, seed);
  const { stage } = run;
  stage.run(run.writer(stage.host), run.owner(stage.peer));
  const got = stage.peer.mm.read(BASE, BYTES);
  let lostBytes = 0;
  for (let i = 0; i < BYTES; i++) if (got[i] !== run.expected[i]) lostBytes++;
  assert(run.report !== undefined, 'a region has not been moved');
  const { report, writes, longestWaitPs, usualWaitPs, failures } = run;
  return { report, writes, lostBytes, longestWaitPs, usualWaitPs, failures };
}

function runAll(seed: number): ExperimentResult {
  const us = (ps: TimePs): number => Math.round(ps / (US / 10)) / 10;
  const rows: Cell[][] = [];
  let ok = true;
  const found = new Map<string, Outcome>();
  for (const pages of LOADS) {
    for (const method of METHODS) {
      const outcome = measure(method, pages, seed);
      found.set(`${method} ${pages}`, outcome);
      const { report, writes, lostBytes, longestWaitPs, usualWaitPs, failures } = outcome;
      const { movedPages, copies, suspendedPs, totalPs } = report;
      const times = [suspendedPs, totalPs, usualWaitPs, longestWaitPs].map(us);
      rows.push([method, pages, movedPages, copies, writes, lostBytes, ...times]);
      // A page that is written during each of its copies stays where it is.
      const least = method === 'retry' ? PAGES * RETRY_SHARE : PAGES;
      ok &&= movedPages >= least && failures === 0;
      ok &&= lostBytes === 0 || method === 'unchecked';
    }
  }
  const of = (method: Method, load: number): Outcome => found.get(`${method} ${load}`) as Outcome;
  const [all, part] = LOADS;
  const [lost, retry] = [of('unchecked', all).lostBytes, of('retry', all)];
  const [suspend, precopy] = [of('suspend', part), of('precopy', part)];
  ok &&= lost > 0 && retry.report.copies > PAGES;
  ok &&= precopy.report.suspendedPs < suspend.report.suspendedPs;
  return {
    columns: [
      'method',
      'written_pages',
      'moved_pages',
      'copied_pages',
      'peer_writes',
      'lost_bytes',
      'suspended_us',
      'total_us',
      'longest_wait_before_us',
      'longest_wait_meanwhile_us',
    ],
    rows,
    result:
      `copy without retry loses ${lost} bytes, with it ${retry.lostBytes} (${retry.report.copies} ` +
      `copies of ${PAGES} pages, peer waits ${us(retry.longestWaitPs)} us at most); suspended for ` +
      `${us(suspend.report.suspendedPs)} us to copy and switch, ${us(precopy.report.suspendedPs)} us ` +
      `when copied beforehand (peer waits ${us(precopy.longestWaitPs)} us); on demand it waits ` +
      `${us(of('on demand', part).longestWaitPs)} us`,
    ok,
  };
}

export const liveCopy: Experiment = {
  name: 'live-copy',
  systems: ['S9'],
  title: 'moving registered memory under a peer that writes: retry, suspend, copy beforehand',
  run: runAll,
};
