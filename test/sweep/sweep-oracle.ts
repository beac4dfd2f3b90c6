/**
 * What must be true of a cell of the sweep, judged from its plan and its outcome alone.
 *
 * Reliable connections: every work request and every receive completes once, in order; every byte is
 * in its place and was written once; every atomic was applied once, in order. Where retry_cnt was
 * used up, that holds up to the failure, and at most once behind it. The other services: every work
 * request completes once; a message arrives whole or not at all, once for every time that the wire
 * delivered it.
 */
import {
  CQE_RECEIVE,
  CQE_WITH_IMMEDIATE,
  QPT_RC,
  QPT_UD,
  WC_ATOMIC_WRITE,
  WC_COMP_SWAP,
  WC_FETCH_ADD,
  WC_FLUSH,
  WC_RDMA_READ,
  WC_RDMA_WRITE,
  WC_RECV,
  WC_RECV_RDMA_WITH_IMM,
  WC_RETRY_EXC_ERR,
  WC_SEND,
  WC_SUCCESS,
  WC_WR_FLUSH_ERR,
  WR_ATOMIC_CMP_AND_SWP,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_ATOMIC_WRITE,
  WR_FLUSH,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
  WR_SEND_WITH_IMM,
} from '../../transport/index.ts';
import type { BareCompletion } from '../fixtures/bare-host.ts';
import {
  GRH_BYTES,
  type Job,
  type Piece,
  type Plan,
  type Queue,
  type Receive,
  SOURCE,
  TARGET,
} from './sweep-cells.ts';
import { FIRST_QPN, type Outcome, type SideOutcome } from './sweep-run.ts';

/** What completes a work request, by its opcode. */
const completionOf: Readonly<Record<number, number>> = {
  [WR_RDMA_WRITE]: WC_RDMA_WRITE,
  [WR_RDMA_WRITE_WITH_IMM]: WC_RDMA_WRITE,
  [WR_SEND]: WC_SEND,
  [WR_SEND_WITH_IMM]: WC_SEND,
  [WR_RDMA_READ]: WC_RDMA_READ,
  [WR_ATOMIC_CMP_AND_SWP]: WC_COMP_SWAP,
  [WR_ATOMIC_FETCH_AND_ADD]: WC_FETCH_ADD,
  [WR_FLUSH]: WC_FLUSH,
  [WR_ATOMIC_WRITE]: WC_ATOMIC_WRITE,
};

export interface Verdict {
  /** What is wrong; empty when all is well. */
  readonly complaints: readonly string[];
  /** Queue pairs whose retries were used up. */
  readonly gaveUp: number;
  /** Messages sent, and those that arrived (for reliable connections: the same). */
  readonly sent: number;
  readonly arrived: number;
  readonly bytes: number;
}

/** What TARGET of one host should hold: the value of each byte, and how often it may be written. */
class Expectation {
  private readonly value: Uint8Array;
  private readonly least: Uint8Array;
  private readonly most: Uint8Array;
  /** Bytes that are judged by themselves: cells, and receives whose message is unknown. */
  private readonly isExempt: Uint8Array;

  constructor(private readonly length: number) {
    this.value = new Uint8Array(length);
    this.least = new Uint8Array(length);
    this.most = new Uint8Array(length);
    this.isExempt = new Uint8Array(length);
  }

  exempt(pieces: readonly Piece[]): void {
    for (const { address, length } of pieces) {
      this.isExempt.fill(1, address - TARGET, address - TARGET + length);
    }
  }

  /** Bytes `from` stand in `pieces` at last, written `least` to `most` times. */
  put(pieces: readonly Piece[], from: Uint8Array, least: number, most: number): void {
    let i = 0;
    for (const { address, length } of pieces) {
      for (let at = address - TARGET; at < address - TARGET + length && i < from.length; at++) {
        this.value[at] = from[i++] as number;
        this.least[at] = least;
        this.most[at] = most;
      }
    }
  }

  /** Whether the host holds what it should; names the first byte that is wrong. */
  check({ target, landed }: SideOutcome): string | undefined {
    for (let at = 0; at < this.length; at++) {
      const times = landed[at] as number;
      const value = times === 0 ? 0 : this.value[at];
      const isTold = times >= (this.least[at] as number) && times <= (this.most[at] as number);
      if ((isTold && target[at] === value) || this.isExempt[at] === 1) continue;
      return `byte ${at + TARGET} holds ${target[at]} (expected ${value}), written ${times} times (expected ${this.least[at]} to ${this.most[at]})`;
    }
    return undefined;
  }
}

/** Judges one cell. */
export function judge(plan: Plan, outcome: Outcome): Verdict {
  return new Judge(plan, outcome).verdict();
}

class Judge {
  private readonly complaints: string[];
  private readonly expected: readonly [Expectation, Expectation];
  private gaveUp = 0;
  private sent = 0;
  private arrived = 0;
  private bytes = 0;

  constructor(
    private readonly plan: Plan,
    private readonly outcome: Outcome,
  ) {
    this.complaints = [...outcome.leaks];
    this.expected = [new Expectation(plan.sides[0].used), new Expectation(plan.sides[1].used)];
  }

  verdict(): Verdict {
    const { plan, outcome } = this;
    const good = ([0, 1] as const).map((side) =>
      plan.sides[side].queues.map((_, queue) => this.judgeSends(side, queue)),
    ) as [number[], number[]];
    for (const side of [0, 1] as const) {
      if (plan.type === QPT_RC) this.judgeReliable(side, good);
      else this.judgeUnreliable(side);
      this.judgeCells(side, good);
    }
    for (const side of [0, 1] as const) {
      const wrong = this.expected[side].check(outcome.sides[side]);
      if (wrong !== undefined) this.say(side, wrong);
      if (!outcome.sides[side].isSourceIntact) this.say(side, 'SOURCE has changed');
      this.judgeCounters(side);
    }
    const { complaints, gaveUp, sent, arrived, bytes } = this;
    return { complaints, gaveUp, sent, arrived, bytes };
  }

  private say(side: number, text: string): void {
    this.complaints.push(`host ${side}: ${text}`);
  }

  private completionsOf(side: 0 | 1, queue: number, isReceive: boolean): BareCompletion[] {
    return this.outcome.sides[side].completions.filter(
      (c) => c.qpn === FIRST_QPN + queue && ((c.flags & CQE_RECEIVE) !== 0) === isReceive,
    );
  }

  /** Every work request completes once, in order. Returns how many succeeded. */
  private judgeSends(side: 0 | 1, queue: number): number {
    const { jobs } = this.plan.sides[side].queues[queue] as Queue;
    const completions = this.completionsOf(side, queue, false);
    const say = (text: string): void => this.say(side, `queue ${queue}: ${text}`);
    let next = 0;
    let good = 0;
    let hasFailed = false;
    for (const job of jobs) {
      this.sent++;
      const c = completions[next];
      if (c?.wrId !== job.wrId) {
        if (job.isSignaled || hasFailed) say(`work ${job.wrId} did not complete in its turn`);
        if (!hasFailed) good++;
        continue;
      }
      next++;
      if (hasFailed) {
        if (c.status !== WC_WR_FLUSH_ERR) say(`work ${job.wrId}: ${c.status} after a failure`);
      } else if (c.status === WC_SUCCESS) {
        good++;
        if (!job.isSignaled) say(`work ${job.wrId} is not signaled`);
        if (c.opcode !== completionOf[job.opcode]) say(`work ${job.wrId} as ${c.opcode}`);
        const isRead = job.opcode === WR_RDMA_READ || job.result !== undefined;
        if (isRead && c.bytes !== job.length) say(`work ${job.wrId} has ${c.bytes} bytes`);
      } else {
        hasFailed = true;
        this.gaveUp++;
        const isUnlucky = c.status === WC_RETRY_EXC_ERR && this.isFaulty();
        if (!isUnlucky) say(`work ${job.wrId} failed with ${c.status}`);
      }
    }
    if (next < completions.length) say(`${completions.length - next} completions too many`);
    return good;
  }

  private isFaulty(): boolean {
    return Object.values(this.plan.faults).some((value) => value > 0);
  }

  /** What the jobs of both hosts put into TARGET of one, and its receives. */
  private judgeReliable(side: 0 | 1, good: readonly [number[], number[]]): void {
    const peer = (1 - side) as 0 | 1;
    const { plan, expected } = this;
    plan.sides[side].queues.forEach(({ jobs }, queue) => {
      const mine = (good[side] as number[])[queue] as number;
      jobs.forEach((job, i) => {
        const least = i < mine ? 1 : 0;
        if (i < mine) this.bytes += job.length;
        if (job.result !== undefined) {
          expected[side].put(job.local, littleEndian(job.result), least, 1);
        } else if (job.opcode === WR_RDMA_READ) {
          const bytes = this.source(peer, [{ address: job.remote, length: job.length }]);
          expected[side].put(job.local, bytes, least, 1);
        }
      });
    });
    const users = plan.sides[peer].queues.map(({ jobs }) => jobs.filter(usesReceive));
    plan.sides[peer].queues.forEach(({ jobs }, queue) => {
      const done = (good[peer] as number[])[queue] as number;
      jobs.forEach((job, i) => {
        if (job.opcode !== WR_RDMA_WRITE && job.opcode !== WR_RDMA_WRITE_WITH_IMM) return;
        const place = [{ address: job.remote, length: job.length }];
        expected[side].put(place, this.source(peer, job.local), i < done ? 1 : 0, 1);
      });
      const acknowledged = jobs.slice(0, done).filter(usesReceive).length;
      this.arrived += done;
      this.judgeReceives(side, queue, users[queue] as Job[], acknowledged);
    });
  }

  /** Receives complete once, in order, with what the peer's messages say. */
  private judgeReceives(side: 0 | 1, queue: number, jobs: Job[], acknowledged: number): void {
    const { plan, expected } = this;
    const peer = (1 - side) as 0 | 1;
    const say = (text: string): void => this.say(side, `queue ${queue}: ${text}`);
    const posted = this.receivesOf(side, queue);
    const completions = this.completionsOf(side, queue, true);
    const used = new Set<number>();
    let good = 0;
    for (const c of completions) {
      const receive = posted.find(({ wrId }) => wrId === c.wrId);
      if (receive === undefined || used.has(c.wrId)) {
        say(`receive ${c.wrId} completes, which is not posted or has completed`);
        continue;
      }
      if (!plan.usesSharedReceives && receive !== posted[used.size])
        say(`receive ${c.wrId} is early`);
      used.add(c.wrId);
      if (c.status === WC_WR_FLUSH_ERR) continue;
      const job = jobs[good++];
      if (c.status !== WC_SUCCESS || job === undefined) {
        say(`receive ${c.wrId} completes with ${c.status} and no message`);
        continue;
      }
      this.judgeReceive(side, c, job, say);
      if (isSend(job)) expected[side].put(receive.pieces, this.source(peer, job.local), 1, 1);
    }
    if (good < acknowledged) say(`${acknowledged} messages acknowledged, ${good} received`);
    // Of a message that was cut off, some bytes may have come, each once.
    if (this.gaveUp === 0) return;
    for (const receive of posted) {
      if (!used.has(receive.wrId) || completions.some((c) => c.wrId === receive.wrId && c.status))
        this.expected[side].exempt(receive.pieces);
    }
  }

  private judgeReceive(
    side: 0 | 1,
    c: BareCompletion,
    job: Job,
    say: (text: string) => void,
    extraBytes = 0,
  ): void {
    const hasImmediate = job.opcode !== WR_SEND;
    if (c.bytes !== job.length + extraBytes) say(`receive ${c.wrId} has ${c.bytes} bytes`);
    if (((c.flags & CQE_WITH_IMMEDIATE) !== 0) !== hasImmediate)
      say(`receive ${c.wrId}: flags ${c.flags}`);
    if (hasImmediate && c.immediate !== job.immediate) say(`receive ${c.wrId}: wrong immediate`);
    const opcode = isSend(job) ? WC_RECV : WC_RECV_RDMA_WITH_IMM;
    if (c.opcode !== opcode) say(`receive ${c.wrId} of host ${side} as ${c.opcode}`);
  }

  /** Datagrams and unreliable connections: whole or not at all, once for each delivery. */
  private judgeUnreliable(side: 0 | 1): void {
    const { plan, outcome, expected } = this;
    const peer = (1 - side) as 0 | 1;
    const extra = plan.type === QPT_UD ? GRH_BYTES : 0;
    const twice = plan.faults.duplicatePpm ? 2 : 1;
    const isClean = !this.isFaulty() && !plan.isOnDemand;
    for (let queue = 0; queue < plan.queuePairs; queue++) {
      const say = (text: string): void => this.say(side, `queue ${queue}: ${text}`);
      const jobs = plan.sides[peer].queues.flatMap((q) => q.jobs.filter(({ to }) => to === queue));
      const posted = this.receivesOf(side, queue);
      const times = new Map<Job, number>();
      this.completionsOf(side, queue, true).forEach((c, i) => {
        const receive = posted[i];
        if (receive?.wrId !== c.wrId || c.status !== WC_SUCCESS) {
          say(`receive ${c.wrId} completes with ${c.status} at place ${i}`);
          return;
        }
        const holds = gather(outcome.sides[side].target, TARGET, receive.pieces).subarray(
          extra,
          c.bytes,
        );
        const job = jobs.find(
          (j) =>
            usesReceive(j) &&
            (isSend(j) ? c.opcode === WC_RECV : c.opcode === WC_RECV_RDMA_WITH_IMM) &&
            (j.opcode === WR_SEND || j.immediate === c.immediate) &&
            (!isSend(j) || Buffer.compare(this.source(peer, j.local), holds) === 0),
        );
        if (job === undefined) {
          say(`receive ${c.wrId} holds no message of the peer`);
          return;
        }
        times.set(job, (times.get(job) ?? 0) + 1);
        this.judgeReceive(side, c, job, say, extra);
        this.arrived++;
        this.bytes += job.length;
      });
      for (const job of jobs) {
        const came = times.get(job) ?? 0;
        if (came > twice) say(`message ${job.wrId} came ${came} times`);
        if (isClean && usesReceive(job) && came !== 1)
          say(`message ${job.wrId} came ${came} times`);
        if (isSend(job)) continue;
        const place = [{ address: job.remote, length: job.length }];
        // The immediate comes last: with it, everything came.
        const least = isClean || came > 0 ? 1 : 0;
        expected[side].put(place, this.source(peer, job.local), least, twice);
        if (!usesReceive(job)) this.arrived += isClean ? 1 : this.isThere(side, job) ? 1 : 0;
      }
      // What a lost message left in a receive is overwritten by the next.
      for (const { pieces } of posted) this.expected[side].exempt(pieces);
    }
  }

  private isThere(side: 0 | 1, job: Job): boolean {
    const landed = this.outcome.sides[side].landed.subarray(job.remote - TARGET);
    return landed.subarray(0, job.length).every((times) => times > 0);
  }

  /** Cells hold what the atomics of their queue pair left, and counters count everything once. */
  private judgeCells(side: 0 | 1, good: readonly [number[], number[]]): void {
    const { plan, outcome } = this;
    const peer = (1 - side) as 0 | 1;
    const { target } = outcome.sides[side];
    const view = new DataView(target.buffer, target.byteOffset);
    plan.sides[peer].queues.forEach(({ jobs, cell, cellValue }, queue) => {
      this.expected[side].exempt([{ address: cell, length: 8 }]);
      const done = (good[peer] as number[])[queue] as number;
      const actual = view.getBigUint64(cell - TARGET, true);
      const isWhole = done === jobs.length;
      if (isWhole && actual !== cellValue) {
        this.say(side, `cell of queue ${queue} holds ${actual}, expected ${cellValue}`);
      }
    });
    const { counter, count } = plan.sides[side];
    this.expected[side].exempt([{ address: counter, length: 8 }]);
    const counted = Number(view.getBigUint64(counter - TARGET, true));
    const isWhole = this.gaveUp === 0;
    if (counted > count || (isWhole && counted !== count))
      this.say(side, `the counter stands at ${counted} after ${count}`);
    this.judgeCounts(side, peer, good, counted);
  }

  /** Every count brought another value, and those of one queue pair grow. */
  private judgeCounts(
    side: 0 | 1,
    peer: 0 | 1,
    good: readonly [number[], number[]],
    counted: number,
  ): void {
    const { plan, outcome } = this;
    const seen = new Set<number>();
    plan.sides[peer].queues.forEach(({ jobs }, queue) => {
      let last = -1;
      jobs.forEach((job, i) => {
        if (job.opcode !== WR_ATOMIC_FETCH_AND_ADD || job.result !== undefined) return;
        this.expected[peer].exempt(job.local);
        const at = (job.local[0] as Piece).address - TARGET;
        const { target, landed } = outcome.sides[peer];
        const times = landed[at] as number;
        if (i < ((good[peer] as number[])[queue] as number) && times !== 1)
          this.say(peer, `the result of work ${job.wrId} was written ${times} times`);
        if (times === 0) return;
        const result = Number(
          new DataView(target.buffer, target.byteOffset + at, 8).getBigUint64(0, true),
        );
        if (result <= last || result >= counted || seen.has(result))
          this.say(peer, `work ${job.wrId} counted ${result} (of ${counted}) after ${last}`);
        last = result;
        seen.add(result);
      });
    });
    if (this.gaveUp === 0 && seen.size !== counted)
      this.say(side, `${seen.size} of ${counted} counts were seen`);
  }

  private judgeCounters(side: 0 | 1): void {
    const mine = this.outcome.sides[side].report.counters;
    const theirs = this.outcome.sides[(1 - side) as 0 | 1].report.counters;
    const value = (name: string): number => mine[name] ?? Number.NaN;
    const delivered = value('port_xmit_packets') - value('wire_drops') + value('wire_duplicates');
    if (delivered !== theirs.port_rcv_packets)
      this.say(side, `${delivered} packets delivered, ${theirs.port_rcv_packets} received`);
  }

  private receivesOf(side: 0 | 1, queue: number): readonly Receive[] {
    const plan = this.plan.sides[side];
    return this.plan.usesSharedReceives ? plan.shared : (plan.queues[queue] as Queue).receives;
  }

  private source(side: 0 | 1, pieces: readonly Piece[]): Uint8Array {
    return gather(this.plan.sides[side].source, SOURCE, pieces);
  }
}

function isSend({ opcode }: Job): boolean {
  return opcode === WR_SEND || opcode === WR_SEND_WITH_IMM;
}

function usesReceive(job: Job): boolean {
  return isSend(job) || job.opcode === WR_RDMA_WRITE_WITH_IMM;
}

function littleEndian(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes;
}

/** The bytes of `pieces`, of a memory that starts at `origin`. */
function gather(memory: Uint8Array, origin: number, pieces: readonly Piece[]): Uint8Array {
  const out = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const { address, length } of pieces) {
    out.set(memory.subarray(address - origin, address - origin + length), at);
    at += length;
  }
  return out;
}
