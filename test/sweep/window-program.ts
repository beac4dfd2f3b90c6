/**
 * Memory windows in the sweep: on every queue pair both hosts lend a window of their memory, round
 * after round, and take it back.
 *
 * A round: the owner binds the window to a fresh stretch, under a fresh key, and grants it (SEND with
 * immediate); the other host writes the stretch through the window, reads it back, and gives it back
 * with a SEND, which in every other round invalidates the key; else the owner invalidates it itself.
 * All that is known of what must happen is kept here, and compared with what did.
 */
import {
  BUS_RECV_DOORBELL,
  CMD_ALLOC_MW,
  CQE_RECEIVE,
  CQE_WITH_IMMEDIATE,
  CQE_WITH_INVALIDATE,
  RandomStream,
  SEND_FENCE,
  SEND_SIGNALED,
  US,
  WC_RETRY_EXC_ERR,
  WC_SUCCESS,
  WR_BIND_MW,
  WR_LOCAL_INV,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_SEND_WITH_IMM,
  WR_SEND_WITH_INV,
} from '../../transport/index.ts';
import type { BareCompletion, BareHost, BareWork } from '../fixtures/bare-host.ts';
import { REGION_KEY } from '../fixtures/bare-host.ts';
import { Places } from './job-artist.ts';
import { type Plan, SOURCE, SOURCE_BYTES, START_PS, TARGET, TARGET_BYTES } from './sweep-cells.ts';
import type { Verdict } from './sweep-oracle.ts';
import { FIRST_QPN, type Outcome } from './sweep-run.ts';

const ROUNDS = 6;
const RELEASE = 0x10000;
/** IBV_ACCESS_REMOTE_WRITE and REMOTE_READ. */
const WINDOW_RIGHTS = 6;

type Side = 0 | 1;

/** A window of one host on one queue pair, and the round that it is in. */
interface Window {
  readonly owner: Side;
  readonly queue: number;
  rkey: number;
  round: number;
  address: number;
  length: number;
}

export class WindowProgram {
  private readonly chance: RandomStream;
  private readonly places = [new Places(), new Places()] as const;
  private readonly windows: Window[] = [];
  private hosts!: readonly [BareHost, BareHost];
  private readonly complaints: string[] = [];
  /** Signalled work requests by side and queue, in the order of their posting. */
  private readonly posted: readonly number[][][];
  private readonly received: readonly number[][];
  /** What TARGET of each host must hold, and where something was put. */
  private readonly value = [new Uint8Array(TARGET_BYTES), new Uint8Array(TARGET_BYTES)] as const;
  private bytes = 0;
  private messages = 0;
  private hasFailed = false;
  private nextWrId = 1;

  constructor(private readonly plan: Plan) {
    this.chance = new RandomStream(plan.seed, 'sweep', 'windows');
    const lists = (): number[][] => Array.from({ length: plan.queuePairs }, () => []);
    this.posted = [lists(), lists()];
    this.received = [0, 1].map(() => new Array<number>(plan.queuePairs).fill(0));
    for (const side of [0, 1] as const) plan.sides[side].used = TARGET_BYTES;
  }

  /** Starts the program. */
  readonly start = (hosts: readonly [BareHost, BareHost]): void => {
    this.hosts = hosts;
    hosts.forEach((host, i) => {
      const side = i as Side;
      host.onCompletion = (completion) => {
        host.completions.push(completion);
        this.complete(side, completion);
      };
      for (let queue = 0; queue < this.plan.queuePairs; queue++) {
        const window = { owner: side, queue, rkey: 0, round: 0, address: 0, length: 0 };
        this.windows.push(window);
        let tag = 0;
        host.at(START_PS - 150 * US, () => {
          tag = host.command(CMD_ALLOC_MW, [1]);
          for (let i = 0; i < 2 * ROUNDS; i++) {
            host.postBuffer(BUS_RECV_DOORBELL, FIRST_QPN + queue, this.nextWrId++, []);
          }
        });
        host.at(START_PS, () => {
          window.rkey = host.results.get(tag)?.result ?? 0;
          this.grant(window);
        });
      }
    });
  };

  /** Judges what happened. */
  verdict({ sides, leaks }: Outcome): Verdict {
    const complaints = [...leaks, ...this.complaints];
    const gaveUp = sides.reduce(
      (sum, { completions }) =>
        sum + completions.filter((c) => c.status === WC_RETRY_EXC_ERR).length,
      0,
    );
    sides.forEach(({ completions, target, landed, isSourceIntact }, side) => {
      if (!isSourceIntact) complaints.push(`host ${side}: SOURCE has changed`);
      const value = this.value[side as Side];
      for (let at = 0; at < TARGET_BYTES; at++) {
        const times = landed[at] as number;
        const isIn = value[at] !== 0;
        const isGood = target[at] === (times > 0 ? value[at] : 0) && times <= (isIn ? 1 : 0);
        if (isGood && (times === 1 || !isIn || this.hasFailed)) continue;
        complaints.push(`host ${side}: byte ${at + TARGET} was written ${times} times`);
        break;
      }
      for (let queue = 0; queue < this.plan.queuePairs; queue++) {
        if (this.hasFailed) continue;
        const ids = completions
          .filter((c) => c.qpn === FIRST_QPN + queue && (c.flags & CQE_RECEIVE) === 0)
          .map((c) => c.wrId);
        const wanted = this.posted[side]?.[queue] ?? [];
        if (ids.join() !== wanted.join()) {
          complaints.push(`host ${side} queue ${queue}: completions ${ids}, expected ${wanted}`);
        }
        if (this.received[side]?.[queue] !== 2 * ROUNDS)
          complaints.push(`host ${side} queue ${queue}: ${this.received[side]?.[queue]} receives`);
      }
    });
    const { messages, bytes } = this;
    return { complaints, gaveUp, sent: messages, arrived: messages, bytes };
  }

  private post(side: Side, queue: number, work: BareWork): void {
    const wrId = this.nextWrId++;
    const isSignaled = ((work.flags ?? SEND_SIGNALED) & SEND_SIGNALED) !== 0;
    if (isSignaled) this.posted[side]?.[queue]?.push(wrId);
    this.hosts[side].postSend(FIRST_QPN + queue, { ...work, wrId });
  }

  /** Binds the window anew and tells the peer. */
  private grant(window: Window): void {
    const { chance, plan } = this;
    const { owner, queue } = window;
    window.rkey = (window.rkey & ~0xff) | ((window.rkey + 1) & 0xff);
    window.length = 1 + chance.below(chance.below(2) === 0 ? plan.mtu : 5 * plan.mtu);
    const places = this.places[owner];
    places.skip(chance.below(100));
    window.address = places.take(window.length);
    this.post(owner, queue, {
      opcode: WR_BIND_MW,
      rkey: window.rkey,
      lkey: REGION_KEY,
      address: window.address,
      length: window.length,
      immediate: WINDOW_RIGHTS,
    });
    this.post(owner, queue, { opcode: WR_SEND_WITH_IMM, immediate: window.round });
  }

  /** The peer's part of a round. */
  private use({ owner, queue, rkey, round, address, length }: Window): void {
    const { chance, plan } = this;
    const user = (1 - owner) as Side;
    const from = SOURCE + chance.below(SOURCE_BYTES - length);
    const back = this.places[user].take(length);
    const bytes = plan.sides[user].source.subarray(from - SOURCE, from - SOURCE + length);
    this.value[owner].set(bytes, address - TARGET);
    this.value[user].set(bytes, back - TARGET);
    this.bytes += 2 * length;
    this.messages += 5;
    const remote = { rkey, remote: address, lkey: REGION_KEY, length };
    this.post(user, queue, { opcode: WR_RDMA_WRITE, ...remote, address: from, flags: 0 });
    this.post(user, queue, { opcode: WR_RDMA_READ, ...remote, address: back });
    // Without the fence the key could go before the READ has been served: a responder may serve READs late.
    const flags = SEND_SIGNALED | SEND_FENCE;
    const release =
      round % 2 === 1
        ? { opcode: WR_SEND_WITH_INV, immediate: rkey, flags }
        : { opcode: WR_SEND_WITH_IMM, immediate: RELEASE | round, flags };
    this.post(user, queue, release);
  }

  private complete(side: Side, c: BareCompletion): void {
    const queue = c.qpn - FIRST_QPN;
    if (c.status !== WC_SUCCESS) {
      if (c.status !== WC_RETRY_EXC_ERR && !this.hasFailed)
        this.complaints.push(`host ${side}: work ${c.wrId} failed with ${c.status}`);
      this.hasFailed = true;
      return;
    }
    if ((c.flags & CQE_RECEIVE) === 0) return;
    const counts = this.received[side] as number[];
    counts[queue] = (counts[queue] as number) + 1;
    const find = (owner: Side): Window =>
      this.windows.find((w) => w.owner === owner && w.queue === queue) as Window;
    const isInvalidated = (c.flags & CQE_WITH_INVALIDATE) !== 0;
    const isRelease = isInvalidated || (c.immediate & RELEASE) !== 0;
    const window = find(isRelease ? side : ((1 - side) as Side));
    const say = (text: string): number =>
      this.complaints.push(`host ${side} queue ${queue} round ${window.round}: ${text}`);
    if (!isRelease) {
      if ((c.flags & CQE_WITH_IMMEDIATE) === 0 || c.immediate !== window.round)
        say('a wrong grant');
      this.use(window);
      return;
    }
    if (isInvalidated !== (window.round % 2 === 1)) say('a wrong release');
    if (isInvalidated && c.immediate !== window.rkey) say(`key ${c.immediate} was invalidated`);
    if (!isInvalidated && c.immediate !== (RELEASE | window.round))
      say('another round is released');
    if (!isInvalidated) {
      this.post(side, queue, { opcode: WR_LOCAL_INV, rkey: window.rkey });
    }
    window.round++;
    if (window.round < ROUNDS) this.grant(window);
  }
}
