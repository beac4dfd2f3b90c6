/**
 * What must be true of a storm, whatever its times were: judged from the plan and the outcome alone.
 *
 * The work requests of one queue pair take effect in their order. Up to the first one that failed
 * all of them did, and what they moved is certain; from there on each may have, and its bytes are
 * allowed but not required. Nothing else may have changed.
 */
import {
  CQE_RECEIVE,
  CQE_WITH_IMMEDIATE,
  WC_LOC_LEN_ERR,
  WC_RETRY_EXC_ERR,
  WC_SUCCESS,
  WC_WR_FLUSH_ERR,
  type WireFaults,
  WR_RDMA_READ,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
  WR_SEND_WITH_IMM,
} from '../../transport/index.ts';
import type { BareCompletion } from '../fixtures/bare-host.ts';
import {
  AREA_BYTES,
  AREAS,
  type Area,
  areaAddress,
  FIRST_PAGE,
  isAtomic,
  PAGE,
  type Plan,
  type Queue,
  type Receive,
  type Work,
} from './adapter-plan.ts';
import type { Outcome } from './adapter-run.ts';

const ORIGIN = FIRST_PAGE * PAGE;
const FIRST_QPN = 0x11;

/** Bytes that one work request puts into an area. */
interface Piece {
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** What became of the send queue of one host's queue pair. */
interface Sent {
  readonly statuses: readonly number[];
  /** Work requests before this one have succeeded. */
  readonly good: number;
}

export interface Verdict {
  /** What is wrong; empty when all is well. */
  readonly complaints: readonly string[];
  /** Queue pairs that nothing was wrong with and that failed all the same (losses, suspends). */
  readonly unlucky: number;
  readonly messages: number;
}

export function judge(plan: Plan, outcome: Outcome): Verdict {
  const complaints: string[] = outcome.leaks.map((leak) => `left over: ${leak}`);
  const complain = (text: string): number => complaints.push(text);
  let unlucky = 0;
  let messages = 0;
  for (let queue = 0; queue < plan.queuePairs; queue++) {
    const queues = plan.hosts.map((host) => host.queues[queue] as Queue) as [Queue, Queue];
    const sent = ([0, 1] as const).map((side) => {
      const where = `host ${side} queue ${queue}`;
      const completions = outcome.hosts[side].completions.filter(
        (c) => c.qpn === FIRST_QPN + queue,
      );
      const sends = completions.filter((c) => (c.flags & CQE_RECEIVE) === 0);
      return judgeSends(queues[side].works, sends, (text) => complain(`${where}: ${text}`));
    }) as [Sent, Sent];
    for (const side of [0, 1] as const) {
      const where = `host ${side} queue ${queue}`;
      const say = (text: string): number => complain(`${where}: ${text}`);
      const peer = (1 - side) as 0 | 1;
      messages += sent[side].good;
      const isFree = mayFail(plan, outcome, queues);
      const failure = sent[side].statuses[sent[side].good];
      const culprit = queues[side].works[sent[side].good];
      if (failure !== undefined && failure !== WC_WR_FLUSH_ERR && culprit?.mustFail !== failure) {
        if (!isFree && failure === WC_RETRY_EXC_ERR) unlucky++;
        else if (!isFree) say(`work ${sent[side].good} failed with ${failure}`);
      }
      if (failure !== undefined && !isFree && !mayTimeOut(plan))
        say('failed, though nothing was wrong');
      const received = outcome.hosts[side].completions.filter(
        (c) => c.qpn === FIRST_QPN + queue && (c.flags & CQE_RECEIVE) !== 0,
      );
      judgeReceives(queues[side].receives, queues[peer].works, received, sent[peer], say);
      judgeMemory(plan, outcome, queue, side, queues, sent, say);
    }
  }
  for (const side of [0, 1] as const) judgeHost(plan, outcome, side, complain);
  judgeCounters(plan, outcome, complain);
  return { complaints, unlucky, messages };
}

/** Whether this queue pair may fail by itself: something is wrong with its work, keys or faults. */
function mayFail(plan: Plan, outcome: Outcome, queues: readonly Queue[]): boolean {
  return (
    queues.some(({ works, killPs }) => killPs > 0 || works.some((w) => w.mustFail !== 0)) ||
    outcome.hosts.some((host) => host.refused > 0) ||
    plan.hosts.some((host) => host.disturbances.some((d) => d.kind === 'destroy'))
  );
}

/** Whether losses, or waits that are longer than a few time-outs, may use up all retries. */
function mayTimeOut({ faults, timeout, hosts }: Plan): boolean {
  const isStoodStill = hosts.some((host) => host.disturbances.some((d) => d.kind === 'suspend'));
  return isFaulty(faults) || timeout < 9 || isStoodStill;
}

/** Whether the wire does anything to packets besides carrying them. */
export function isFaulty({ lossPpm, duplicatePpm, reorderPpm, corruptPpm }: WireFaults): boolean {
  return lossPpm + (duplicatePpm ?? 0) + (reorderPpm ?? 0) + (corruptPpm ?? 0) > 0;
}

/** Every work request completes once, in order; one failure, then flushes. */
function judgeSends(
  works: readonly Work[],
  completions: readonly BareCompletion[],
  say: (text: string) => void,
): Sent {
  const statuses: number[] = [];
  let next = 0;
  let good = 0;
  for (const work of works) {
    const hasFailed = good < statuses.length;
    let status: number = WC_SUCCESS;
    const completion = completions[next];
    if (completion?.wrId === work.wrId) {
      next++;
      status = completion.status;
      if (status === WC_SUCCESS && completion.bytes !== work.length)
        say(`work ${work.wrId} completes ${completion.bytes} of ${work.length} bytes`);
      if (status === WC_SUCCESS && !work.isSignaled) say(`work ${work.wrId} is not signaled`);
    } else if (work.isSignaled || hasFailed) say(`work ${work.wrId} did not complete`);
    if (hasFailed && status !== WC_WR_FLUSH_ERR)
      say(`work ${work.wrId}: ${status} after a failure`);
    if (status === WC_SUCCESS && work.mustFail !== 0) say(`work ${work.wrId} succeeded`);
    statuses.push(status);
    if (!hasFailed && status === WC_SUCCESS) good++;
  }
  if (next < completions.length) say(`${completions.length - next} completions too many`);
  return { statuses, good };
}

/** Receives complete once, in order, with what the peer's sends say. */
function judgeReceives(
  receives: readonly Receive[],
  works: readonly Work[],
  completions: readonly BareCompletion[],
  sent: Sent,
  say: (text: string) => void,
): void {
  const users = works.filter((work) => usesReceive(work));
  let failed = false;
  let good = 0;
  completions.forEach((c, i) => {
    const [receive, work] = [receives[i], users[i]];
    if (receive?.wrId !== c.wrId) say(`receive ${c.wrId} completes at place ${i}`);
    if (c.status === WC_SUCCESS) {
      good++;
      if (failed) say(`receive ${c.wrId} succeeds after a failure`);
      if (work?.length !== c.bytes) say(`receive ${c.wrId} has ${c.bytes} bytes`);
      const hasImmediate = work !== undefined && work.opcode !== WR_SEND;
      if (hasImmediate !== ((c.flags & CQE_WITH_IMMEDIATE) !== 0)) say('wrong immediate flag');
      if (hasImmediate && work.immediate !== c.immediate) say('wrong immediate');
    } else {
      if (failed && c.status !== WC_WR_FLUSH_ERR) say(`receive ${c.wrId}: ${c.status}`);
      if (c.status === WC_LOC_LEN_ERR && !work?.mustFail) say(`receive ${c.wrId} is too short`);
      failed = true;
    }
  });
  const acknowledged = works.slice(0, sent.good).filter(usesReceive).length;
  if (good < acknowledged) say(`${acknowledged} sends succeeded, ${good} receives`);
  if (failed && completions.length !== receives.length) say('a receive was not flushed');
}

function littleEndian(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes;
}

function usesReceive({ opcode }: Work): boolean {
  return opcode === WR_SEND || opcode === WR_SEND_WITH_IMM || opcode === WR_RDMA_WRITE_WITH_IMM;
}

/** The areas of one queue pair on one host hold what both hosts' work requests put there. */
function judgeMemory(
  plan: Plan,
  outcome: Outcome,
  queue: number,
  side: 0 | 1,
  queues: readonly [Queue, Queue],
  sent: readonly [Sent, Sent],
  say: (text: string) => void,
): void {
  const peer = (1 - side) as 0 | 1;
  const { before, after } = outcome.hosts[side];
  const sourceOf = (host: 0 | 1, address: number, length: number): Uint8Array =>
    outcome.hosts[host].before.subarray(address - ORIGIN, address - ORIGIN + length);
  const pieces: Record<Area, (Piece | undefined)[]> = {
    source: [],
    target: [],
    receive: [],
    read: [],
    readBack: [],
  };
  let receive = 0;
  for (const work of queues[peer].works) {
    const bytes = Math.min(work.length, AREA_BYTES);
    const source = sourceOf(peer, work.local, bytes);
    const isSend = work.opcode === WR_SEND || work.opcode === WR_SEND_WITH_IMM;
    const isWrite = work.opcode < WR_SEND && work.mustFail === 0;
    const buffer = usesReceive(work) ? queues[side].receives[receive++] : undefined;
    // A send that is too long may have filled the buffer before that was seen.
    const room = isSend && buffer ? source.subarray(0, buffer.length) : source;
    const put = isAtomic(work) ? littleEndian(work.after) : source;
    pieces.target.push(isWrite || isAtomic(work) ? { at: work.remote, bytes: put } : undefined);
    pieces.receive.push(isSend && buffer ? { at: buffer.address, bytes: room } : undefined);
  }
  const startOf = (area: Area): number => areaAddress(plan, queue, area);
  for (const work of queues[side].works) {
    const isRead = work.opcode === WR_RDMA_READ && work.mustFail === 0;
    const isBack = work.local >= startOf('readBack');
    const brought = isRead && !isBack ? sourceOf(peer, work.remote, work.length) : undefined;
    const bytes = isAtomic(work) ? littleEndian(work.before) : brought;
    pieces.read.push(bytes && { at: work.local, bytes });
    pieces.readBack.push(undefined);
  }
  const good = {
    source: 0,
    target: sent[peer].good,
    receive: sent[peer].good,
    read: sent[side].good,
  };
  for (const area of ['source', 'target', 'receive', 'read'] as const) {
    const start = startOf(area) - ORIGIN;
    const expected = before.slice(start, start + AREA_BYTES);
    const put = (piece: Piece | undefined): void => {
      if (piece) expected.set(piece.bytes, piece.at - ORIGIN - start);
    };
    pieces[area].slice(0, good[area]).forEach(put);
    const actual = after.subarray(start, start + AREA_BYTES);
    const wrong = firstWrong(expected, actual, start + ORIGIN, pieces[area].slice(good[area]));
    if (wrong >= 0) say(`${area}: byte ${wrong - start - ORIGIN} (address ${wrong}) is wrong`);
  }
  judgeReadBack(plan, outcome, queue, side, queues[side].works, sent[side].good, say);
}

/** Address of the first byte that is neither expected nor put there by one of `maybe`; or -1. */
function firstWrong(
  expected: Uint8Array,
  actual: Uint8Array,
  origin: number,
  maybe: readonly (Piece | undefined)[],
): number {
  if (Buffer.compare(expected, actual) === 0) return -1;
  for (let i = 0; i < expected.length; i++) {
    if (expected[i] === actual[i]) continue;
    const address = origin + i;
    if (!maybe.some((piece) => piece && piece.bytes[address - piece.at] === actual[i])) {
      return address;
    }
  }
  return -1;
}

/** A READ of what this host wrote before brings at least those writes, and perhaps later ones. */
function judgeReadBack(
  plan: Plan,
  outcome: Outcome,
  queue: number,
  side: 0 | 1,
  works: readonly Work[],
  good: number,
  say: (text: string) => void,
): void {
  const peer = (1 - side) as 0 | 1;
  const { before, after } = outcome.hosts[side];
  const target = areaAddress(plan, queue, 'target') - ORIGIN;
  const area = areaAddress(plan, queue, 'readBack');
  const content = outcome.hosts[peer].before.slice(target, target + AREA_BYTES);
  const untouched = before.slice(area - ORIGIN, area - ORIGIN + AREA_BYTES);
  const pieceOf = (work: Work): Piece | undefined =>
    work.opcode < WR_SEND && work.mustFail === 0
      ? {
          at: work.remote,
          bytes: before.subarray(work.local - ORIGIN, work.local - ORIGIN + work.length),
        }
      : undefined;
  works.forEach((work, i) => {
    const piece = pieceOf(work);
    if (piece) content.set(piece.bytes, piece.at - ORIGIN - target);
    const isBack = work.opcode === WR_RDMA_READ && work.mustFail === 0 && work.local >= area;
    if (!isBack || work.local >= area + AREA_BYTES) return;
    const from = work.remote - ORIGIN - target;
    const expected = content.slice(from, from + work.length);
    const actual = after.subarray(work.local - ORIGIN, work.local - ORIGIN + work.length);
    const later = works.slice(i + 1).map(pieceOf);
    if (i >= good) later.push({ at: work.remote, bytes: untouched.slice(work.local - area) });
    const wrong = firstWrong(expected, actual, work.remote, later);
    if (wrong >= 0) say(`work ${i} read a wrong byte at ${wrong}`);
    untouched.set(actual, work.local - area);
  });
  const start = area - ORIGIN;
  if (Buffer.compare(untouched, after.subarray(start, start + AREA_BYTES)) !== 0)
    say('readBack: bytes outside the READs have changed');
}

/** Pages that nobody may touch are as they were, and regions are as they were left. */
function judgeHost(
  plan: Plan,
  outcome: Outcome,
  side: 0 | 1,
  complain: (text: string) => void,
): void {
  const { before, after, spoilt, frozen } = outcome.hosts[side];
  if (spoilt.length > 0) complain(`host ${side}: frames ${spoilt} were written`);
  const guard = areaAddress({ split: plan.queuePairs + 1 }, plan.split, AREAS[0]) - ORIGIN;
  const isSame = Buffer.compare(
    before.subarray(guard, guard + PAGE),
    after.subarray(guard, guard + PAGE),
  );
  if (isSame !== 0) complain(`host ${side}: the page between the domains was written`);
  for (const { first, bytes } of frozen) {
    const now = after.subarray(first * PAGE, first * PAGE + bytes.length);
    if (Buffer.compare(bytes, now) !== 0) complain(`host ${side}: a destroyed region was written`);
  }
}

/** What one side counts as sent the other counts as received, and so on. */
function judgeCounters(plan: Plan, outcome: Outcome, complain: (text: string) => void): void {
  const sum = (side: 0 | 1, name: keyof Outcome['hosts'][0]['report']['queuePairs'][0]): number =>
    outcome.hosts[side].report.queuePairs.reduce((total, qp) => total + qp[name], 0);
  for (const side of [0, 1] as const) {
    const mine = outcome.hosts[side].report.counters as Record<string, number>;
    const theirs = outcome.hosts[1 - side].report.counters as Record<string, number>;
    const equal = (what: string, x: number | undefined, y: number | undefined): void => {
      if (x !== y) complain(`host ${side}: ${what}: ${x} is not ${y}`);
    };
    const value = (name: string): number => mine[name] ?? Number.NaN;
    equal(
      'packets on the way',
      value('port_xmit_packets') - value('wire_drops') + value('wire_duplicates'),
      theirs.port_rcv_packets,
    );
    if (!isFaulty(plan.faults))
      equal('data on the way', value('port_xmit_data'), theirs.port_rcv_data);
    equal('packets of queue pairs', sum(side, 'packets_sent'), value('port_xmit_packets'));
    const sound = value('port_rcv_packets') - value('port_rcv_errors');
    equal('packets for queue pairs', sum(side, 'packets_received'), sound);
    equal('retransmissions', sum(side, 'retransmitted_packets'), value('retransmitted_packets'));
    equal('RNR NAKs sent', sum(side, 'rnr_naks_sent'), value('rnr_naks_sent'));
    equal('RNR NAKs received', sum(side, 'rnr_naks_received'), value('rnr_nak_retry_err'));
    equal('time-outs', sum(side, 'timeouts'), value('local_ack_timeout_err'));
    equal('duplicates', sum(side, 'duplicate_requests'), value('duplicate_request'));
    const raised =
      value('odp_local_triggered_page_fault') + value('odp_remote_triggered_page_fault');
    equal('page faults', raised, outcome.hosts[side].faults);
    const twice = value('wire_duplicates');
    if ((theirs.rnr_nak_retry_err ?? 0) > value('rnr_naks_sent') + twice)
      complain(`host ${side}: more RNR NAKs received than sent`);
    if ((theirs.port_rcv_errors ?? 0) > value('wire_corruptions') + twice)
      complain(`host ${side}: more packets were damaged than the wire says`);
  }
}
