/**
 * Owns what every operation needs while it is tried: two connected ends, fresh memory at both, and
 * what became of it. Does not own the operations (operations.ts) nor the cells (cells.ts).
 */
import type { Answer, Command, Completion, End, Path, Service } from './end.ts';

const PAGE_BYTES = 4096;
/** How long completions may take: rxe gives up by itself after 8 time-outs of 16.8 ms, if it can. */
export const WAIT_MS = 10_000;
/** How long to wait for what may have been lost for good. */
const LINGER_MS = 300;
const GUARD_BYTES = 16;
const GUARD_SEED = 0xa5;

/** Hands out ranges of a region, each on pages of its own and no two at the same place in a page. */
export class Ranges {
  private page = 0;
  private count = 0;

  constructor(readonly memoryBytes: number) {}

  /** Offset of `length` bytes with guards around them; a multiple of `alignment`. */
  take(length: number, alignment = 1): number {
    const inPage = GUARD_BYTES + ((this.count++ * 1031) % (PAGE_BYTES - 2 * GUARD_BYTES));
    const offset = this.page * PAGE_BYTES + Math.ceil(inPage / alignment) * alignment;
    this.page = Math.floor((offset + length + GUARD_BYTES) / PAGE_BYTES) + 1;
    if (this.page * PAGE_BYTES > this.memoryBytes) throw new Error('the region is too small');
    return offset;
  }
}

/** An end together with what of its memory is free. */
export interface Station {
  readonly end: End;
  readonly ranges: Ranges;
  /** The CPU must not touch memory before the adapter does. */
  readonly isOnDemand: boolean;
  /** It is Linux's rxe, with its departures from the specification. */
  readonly isRxe: boolean;
}

/** A message, from where to where. */
export interface Message {
  readonly index: number;
  readonly length: number;
  readonly seed: number;
  /** Offsets into the requester's and the responder's region. */
  readonly local: number;
  readonly remote: number;
}

/** How many frames the wire has dropped, and how many it has delivered twice. */
export interface Harm {
  readonly dropped: number;
  readonly doubled: number;
}

const noHarm: Harm = { dropped: 0, doubled: 0 };

/** What became of one cell of the table. */
export interface Outcome {
  readonly good: number;
  readonly total: number;
  /** Any of them makes the cell red. */
  readonly problems: readonly string[];
  /** Messages that did not arrive though nothing of theirs was dropped. */
  readonly missing: number;
}

/** Into how many pieces (SGEs) a message's local buffer is cut: one to three, by turns. */
export function piecesOf({ index, length }: Message): number {
  return length < 3 ? 1 : 1 + (index % 3);
}

/** What a message with an immediate carries. */
export function immediateOf({ index }: Message): number {
  return 0xface0000 + index;
}

export class Bench {
  readonly problems: string[] = [];

  constructor(
    readonly service: Service,
    readonly path: Path,
    readonly requester: Station,
    readonly responder: Station,
    /** Frames dropped and doubled so far; undefined where the wire is left alone. */
    readonly harm: (() => Promise<Harm>) | undefined,
  ) {}

  /** What is lost on the wire is lost for good. */
  get isLossy(): boolean {
    return this.harm !== undefined && this.service !== 'rc';
  }

  /** Messages of `lengths`, with room at both ends and contents that no two of them share. */
  messages(lengths: readonly number[], alignment = 1, extraRemoteBytes = 0): Message[] {
    return lengths.map((length, index) => ({
      index,
      length,
      seed: (length + 31 * index + 1) & 0xff,
      local: this.requester.ranges.take(length, alignment),
      remote: this.responder.ranges.take(length + extraRemoteBytes, alignment),
    }));
  }

  /** Lengths of messages, no two alike, so that a receive's length says which message it took. */
  lengths(): number[] {
    const mtu = this.path.mtuBytes;
    const ofOnePacket = [mtu - 3, 1, mtu, 0, (mtu >> 1) + 2];
    if (this.service === 'ud') return ofOnePacket;
    return [...ofOnePacket, 2 * mtu, 3 * mtu + 5, mtu + 1];
  }

  /** Puts the messages where the requester will take them from. */
  fill(messages: readonly Message[]): Command[] {
    return messages.map((m) => ({ verb: 'fill', off: m.local, len: m.length, seed: m.seed }));
  }

  /** Runs commands at an end; whatever is wrong becomes a problem of the cell. */
  async run(station: Station, commands: readonly Command[]): Promise<Answer> {
    const answer = await station.end.run(commands);
    for (const { status, statusText, op, id } of answer.completions) {
      if (status === 0) continue;
      this.problems.push(`${station.end.name}: completion ${id} ${op} ${status} ${statusText}`);
    }
    for (const error of answer.errors) this.problems.push(`${station.end.name}: ${error}`);
    return answer;
  }

  /** Waits for `count` completions, or, where messages may be lost, for what comes. */
  waiting(count: number, mayBeLost = false): Command {
    return mayBeLost ? { verb: 'expect', ms: LINGER_MS } : { verb: 'wait', n: count, ms: WAIT_MS };
  }

  /**
   * Makes a target ready. What surrounds it is filled, to see later that it was left alone; on-demand
   * memory is left untouched instead, so that the adapter is the first to need it. Where a fault
   * would cost the message, an application prefetches, and so do we: on an unreliable service, whose
   * packets nobody sends again, and for `isOneShot` requests of rxe (rxe-address-lost).
   */
  prepare(station: Station, offset: number, length: number, isOneShot = false): Command[] {
    if (!station.isOnDemand) return guards(offset, length).map((g) => ({ verb: 'fill', ...g }));
    const isCostly = this.service !== 'rc' || (isOneShot && this.requester.isRxe);
    if (!isCostly || length === 0) return [];
    return [{ verb: 'advise', off: offset, len: length, write: 1 }];
  }

  /** Checks a target and what surrounds it. */
  check(station: Station, offset: number, length: number, seed: number): Command[] {
    const inside = { verb: 'check', off: offset, len: length, seed };
    return [inside, ...this.checkGuard(station, offset, length)];
  }

  /** Checks only what surrounds a target. */
  checkGuard(station: Station, offset: number, length: number): Command[] {
    return station.isOnDemand ? [] : guards(offset, length).map((g) => ({ verb: 'check', ...g }));
  }

  /** The address at the responder of `offset` in its region. */
  remoteAddress(offset: number): bigint {
    return this.responder.end.address.memoryAddress + BigInt(offset);
  }

  /** Notes where a completion is not the expected one. */
  compare(station: Station, got: Completion | undefined, expected: Partial<Completion>): void {
    if (got === undefined || got.status !== 0) return; // Noted where it was waited for.
    for (const [name, value] of Object.entries(expected)) {
      const actual = got[name as keyof Completion];
      if (actual === value) continue;
      this.problems.push(
        `${station.end.name}: completion ${got.id}: ${name} ${actual}, not ${value}`,
      );
    }
  }

  /** Requests complete in the order they were posted, each once. */
  checkOrder(station: Station, completions: readonly Completion[], count: number): void {
    const ids = completions.map(({ id }) => id);
    if (ids.length > count || ids.some((id, i) => i > 0 && id <= (ids[i - 1] as number))) {
      this.problems.push(`${station.end.name}: completions ${ids.join(' ')}`);
    }
  }

  /**
   * The outcome when `arrived` of `total` messages did. On an unreliable service every frame that was
   * dropped may have cost one, and on UC every one that was doubled, for a packet with an unexpected
   * PSN ends the message; on a reliable service and on a wire left alone nothing may be missing.
   */
  async arrival(arrived: number, total: number): Promise<Outcome> {
    const harm = this.isLossy && this.harm !== undefined ? await this.harm() : noHarm;
    const excusable = harm.dropped + (this.service === 'uc' ? harm.doubled : 0);
    return this.outcome(arrived, total, Math.max(0, total - excusable - arrived));
  }

  outcome(good: number, total: number, missing = 0): Outcome {
    return {
      good: this.problems.length > 0 ? Math.min(good, total - 1) : good,
      total,
      missing,
      problems: this.problems,
    };
  }
}

function guards(offset: number, length: number): { off: number; len: number; seed: number }[] {
  return [offset - GUARD_BYTES, offset + length].map((off) => ({
    off,
    len: GUARD_BYTES,
    seed: GUARD_SEED,
  }));
}
