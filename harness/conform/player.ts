/**
 * Replays what one queue pair took part in: our adapter in the place of its host.
 *
 * What arrived there arrives at ours, requests and answers alike; what its program did, our host does;
 * what ours sends, completes and then has in memory is compared with what the captured host sent, said
 * and had. Where the program is not known, only requests are given to ours, and only its answers are
 * compared.
 *
 * A capture is a partial order: the hub noted a packet between its leaving one host and reaching the
 * other. So what the captured host sent in front of a packet was sent before that arrived, and nothing
 * more is certain. An answer is therefore held back for as long as our requester goes on as the
 * captured one did without it, and is given when ours has nothing more to do, or when the captured one
 * went back or stopped there.
 */

import { psnAdd } from '../../hca/index.ts';
import { VerbsError } from '../../kernel/index.ts';
import {
  Failure,
  NEVER,
  QPT_UC,
  SEC,
  type TimePs,
  WC_RETRY_EXC_ERR,
} from '../../transport/index.ts';
import type { Packet } from '../capture/packet.ts';
import { isDropped, type Situation } from './excuses.ts';
import { Difference, type Findings } from './findings.ts';
import type { Arrival, Flow } from './flow.ts';
import { type OurCompletion, Program } from './program.ts';
import { asCaptured, asOurs } from './rewrite.ts';
import { rules } from './rxe-profile.ts';
import { Script } from './script.ts';
import { SentPackets } from './sent-packets.ts';
import type { Stage } from './stage.ts';
import type { Step } from './timeline.ts';
import { Tool } from './tool.ts';

/** Simulated time without any progress after which nothing more is expected. */
const PATIENCE_PS: TimePs = 100 * SEC;
/** The same in events. */
const EVENTS_MAX = 1_000_000;
/** The retry_cnt that rxe does not count down. */
const RETRY_ENDLESS = 7;
/** A tool's receives take its largest message, and at least this. */
const MESSAGE_MIN_BYTES = 65_536;

export interface PlayerOptions {
  /** The program; undefined where it is not known. */
  readonly steps: readonly Step[] | undefined;
  /** Places of answers that came only after so many requests had been sent. */
  readonly late: ReadonlyMap<number, number>;
  /** Whether the hosts' own devices lost packets in front of the capture. */
  readonly isLossy: boolean;
}

type PlacedArrival = Arrival & { readonly place: number };

export class Player {
  private readonly stage: Stage;
  private readonly program: Program;
  private readonly sent: SentPackets;
  /** The program that is known, or what is known of one that is not. */
  private readonly script: Script | undefined;
  private readonly tool: Tool | undefined;
  private readonly arrivals: readonly PlacedArrival[];
  private readonly situation: Situation;
  /** The next arrival, and whether what it needs is there. */
  private arrival = 0;
  private isPrepared = false;
  private receivesTaken = 0;
  private failure: Difference | undefined;
  /** A rule has ended the comparison. */
  private isOver = false;
  private progressPs: TimePs = 0;
  private events = 0;
  /** Places of the answers given since the last request of ours. */
  private recentAnswers: number[] = [];

  constructor(
    private readonly flow: Flow,
    private readonly options: PlayerOptions,
    private readonly findings: Findings,
  ) {
    const { steps } = options;
    const scratchBytes = Math.max(MESSAGE_MIN_BYTES, ...flow.receives.messages.map(bytesOf));
    this.stage = Program.stageFor(flow.setup, scratchBytes);
    this.program = new Program(this.stage, flow.setup, scratchBytes);
    this.arrivals = flow.arrivals
      .map((arrival, place) => ({ ...arrival, place }))
      .filter(({ packet }) => steps !== undefined || !packet.isResponse);
    const { program } = this;
    const situation: Situation = {
      flow,
      program,
      isLossy: options.isLossy,
      mtu: flow.setup.connections[0]?.mtu ?? 1024,
      lastArrival: undefined,
      nextArrival: this.arrivals[0]?.index ?? Number.POSITIVE_INFINITY,
      lastRnrNak: undefined,
      lastAnswer: undefined,
      lastRequest: undefined,
      sent: new Set(),
      sentSinceNak: new Map(),
    };
    this.situation = situation;
    this.sent = new SentPackets(steps !== undefined, situation, findings);
    this.sent.onMatch = ({ packet }) => {
      if (!packet.isResponse) this.recentAnswers = [];
      this.progress();
    };
    if (steps === undefined) this.tool = new Tool(flow, program);
    else this.script = new Script(steps, program, this.sent, situation, findings);
    this.stage.onSent = (packet) => this.onSent(packet);
  }

  /** Answers given just before the first difference, by place: somebody may want to hold them. */
  get suspects(): readonly number[] {
    return this.recentAnswers;
  }

  /** Replays everything; returns the first difference that no rule excuses. */
  play(): Difference | undefined {
    try {
      while (this.failure === undefined && this.advance());
      if (this.failure !== undefined || this.isOver) return this.failure;
      this.tool?.conclude(this.sent.lastFrame);
      this.script?.conclude();
      return undefined;
    } catch (error) {
      if (error instanceof Difference) return error;
      // What the captured host could do, ours refuses.
      if (error instanceof VerbsError || error instanceof Failure) {
        return new Difference(`${error.message} (here)`, this.sent.lastFrame);
      }
      throw error;
    } finally {
      this.stage.dispose();
    }
  }

  /** Does the next thing; false when there is nothing left to do. */
  private advance(): boolean {
    const { stage, sent } = this;
    const completions = this.program.takeCompletions();
    this.tool?.check(completions);
    this.script?.complete(completions);
    if (this.hasGivenUp(completions)) return false;
    if (this.give(false)) return true;
    if (!stage.isIdle) return this.wait();
    if (this.runScript(false) || this.give(true) || sent.skipAnswer()) return true;
    if (this.nextIndex === Number.POSITIVE_INFINITY && this.script?.isDone !== false) return false;
    // Only time can help now.
    if (this.isPatient) return this.wait();
    if (this.runScript(true)) return true;
    throw this.stuck();
  }

  private runScript(isForced: boolean): boolean {
    const place = this.arrivals[this.arrival]?.place ?? Number.POSITIVE_INFINITY;
    const hasRun = this.script?.run(this.nextIndex, place, isForced) === true;
    if (hasRun) this.progress();
    return hasRun;
  }

  /** Whether ours has used up retry_cnt 7 where rxe goes on: it can be followed no further. */
  private hasGivenUp(completions: readonly OurCompletion[]): boolean {
    const { script, flow } = this;
    if (flow.setup.connections[0]?.retry !== RETRY_ENDLESS) return false;
    const given = completions.find(({ status }) => status === WC_RETRY_EXC_ERR);
    if (given === undefined || script?.expects(given.id, WC_RETRY_EXC_ERR) !== false) return false;
    const next = this.sent.nextRequest;
    const again = flow.requests.filter(({ packet }) => packet.psn === next?.packet.psn);
    if (next === undefined || again.length <= 1 + RETRY_ENDLESS) return false;
    this.findings.depart(rules.RETRY_FOR_EVER, next.number);
    this.isOver = true;
    return true;
  }

  /** Index of the first packet that has not had its turn. */
  private get nextIndex(): number {
    const arrival = this.arrivals[this.arrival]?.index ?? Number.POSITIVE_INFINITY;
    return Math.min(arrival, this.sent.nextIndex);
  }

  private get isPatient(): boolean {
    const { stage, events, progressPs } = this;
    return stage.next !== NEVER && stage.next - progressPs < PATIENCE_PS && events < EVENTS_MAX;
  }

  private wait(): boolean {
    if (this.events++ > EVENTS_MAX) throw this.stuck();
    this.stage.step();
    return true;
  }

  private progress(): void {
    this.progressPs = this.stage.now;
    this.events = 0;
  }

  /**
   * Gives the next arrival to our adapter if its time has come; `isIdle`: ours has nothing to do. Answers
   * that were all there before the next request was sent are taken in together.
   */
  private give(isIdle: boolean): boolean {
    const arrival = this.arrivals[this.arrival];
    if (arrival === undefined || this.sent.nextIndex < arrival.index) return false;
    if (!arrival.packet.isResponse) return isIdle && this.giveRequest(arrival);
    if (this.isHeld(arrival.place, isIdle)) return false;
    this.stage.beginBurst();
    for (;;) {
      this.giveAnswer(this.arrivals[this.arrival++] as PlacedArrival);
      const next = this.arrivals[this.arrival];
      if (next === undefined || !next.packet.isResponse || this.sent.nextIndex < next.index) break;
      if (this.isLate(next.place)) break;
    }
    this.progress();
    return true;
  }

  private giveAnswer(arrival: PlacedArrival): void {
    const { situation } = this;
    const { packet } = arrival;
    situation.lastArrival = arrival;
    this.recentAnswers.push(arrival.place);
    if (packet.isRnrNak) situation.lastRnrNak = packet;
    if (packet.isRnrNak || packet.isNak) situation.sentSinceNak.clear();
    this.deliver(arrival);
  }

  private giveRequest(arrival: PlacedArrival): boolean {
    const { situation } = this;
    this.progress();
    if (!this.isPrepared && this.tool?.prepare(arrival)) {
      this.isPrepared = true;
      return true;
    }
    this.isPrepared = false;
    this.arrival++;
    situation.lastArrival = arrival;
    const { number } = arrival.captured;
    const rule = isDropped(arrival, situation);
    if (this.flow.readsBeyond.has(arrival.place)) {
      this.findings.depart(rules.RD_ATOMIC_EXCEEDED, number);
    }
    if (rule !== undefined) this.findings.depart(rule, number);
    else if (this.overflows(arrival)) {
      this.findings.depart(rules.RECEIVE_TOO_SMALL, number);
      this.program.fail();
    } else this.deliver(arrival);
    return true;
  }

  /** Whether this is a UC message that rxe finds too long for its receive. */
  private overflows({ place }: PlacedArrival): boolean {
    const { setup, receives } = this.flow;
    if (setup.type !== QPT_UC || this.tool !== undefined || !receives.takes.has(place))
      return false;
    const number = this.receivesTaken++;
    const room = this.program.receiveBytes[number];
    return room !== undefined && (receives.messages[number]?.length ?? 0) > room;
  }

  private deliver({ captured, packet }: PlacedArrival): void {
    this.situation.nextArrival = this.arrivals[this.arrival]?.index ?? Number.POSITIVE_INFINITY;
    this.findings.compared.add(captured.number);
    this.stage.deliver(asOurs(packet, this.program));
  }

  private isHeld(place: number, isIdle: boolean): boolean {
    if (this.isLate(place)) return true;
    if (isIdle) return false;
    const next = this.sent.nextRequest;
    const last = this.situation.lastRequest;
    if (next === undefined) return false;
    if (last === undefined) return true;
    return next.packet.psn === psnAdd(last.psn, last.span(this.situation.mtu));
  }

  /** Whether this answer reached the captured host only behind requests that ours has not sent yet. */
  private isLate(place: number): boolean {
    return this.sent.requests < (this.options.late.get(place) ?? 0);
  }

  private onSent(packet: Packet): void {
    if (this.failure !== undefined) return;
    this.failure = this.sent.compare(asCaptured(packet, this.flow.setup));
    // An answer that the captured host had at this point has to be there before the next packet.
    while (this.failure === undefined && this.arrivals[this.arrival]?.packet.isResponse) {
      if (!this.give(false)) break;
    }
  }

  /** Says what never came. */
  private stuck(): Difference {
    const missing = this.sent.missing(this.nextIndex);
    if (missing !== undefined) return missing;
    const what = this.script?.describe() ?? 'the replay comes to no end';
    return new Difference(what, this.sent.lastFrame);
  }
}

function bytesOf({ length }: Uint8Array): number {
  return length;
}
