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
import { VerbsError } from '../../kernel/index.ts';
import { Failure, NEVER, SEC, type TimePs, WC_RETRY_EXC_ERR, WC_SUCCESS } from '../../transport/index.ts';
import { checkMemory } from './check-memory.ts';
import { compareCompletion, isOfReceive, pickCompletion } from './completions.ts';
import { Difference, type Findings } from './findings.ts';
import type { Arrival, Flow } from './flow.ts';
import { differenceOf, type Packet, psnAfter } from './packet.ts';
import { type OurCompletion, Program } from './program.ts';
import { type CommandText, Words } from './rcpeer-text.ts';
import { asCaptured, asOurs } from './rewrite.ts';
import { excuseAnswer, excuseRequest, isDropped, rules, type Situation } from './rxe-profile.ts';
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
  private readonly tool: Tool | undefined;
  /** Whether what the next arrival needs is there. */
  private isPrepared = false;
  private readonly arrivals: readonly PlacedArrival[];
  private readonly situation: Situation;
  // How far each list has come.
  private arrival = 0;
  private answer = 0;
  private request = 0;
  private step = 0;
  /** Within the step: requests posted, receives posted, or completions seen. */
  private part = 0;
  private receivesPosted = 0;
  /** Completions of ours that no line of the text has asked for yet. */
  private readonly completions: OurCompletion[] = [];
  private hasFailed = false;
  private failure: Difference | undefined;
  /** A rule has ended the comparison. */
  private isOver = false;
  private progressPs: TimePs = 0;
  private events = 0;
  /** Places of the answers given since the last request matched. */
  private recentAnswers: number[] = [];

  constructor(
    private readonly flow: Flow,
    private readonly options: PlayerOptions,
    private readonly findings: Findings,
  ) {
    const scratchBytes = Math.max(MESSAGE_MIN_BYTES, ...flow.receives.messages.map(bytesOf));
    const isTool = options.steps === undefined;
    this.stage = Program.stageFor(flow.setup, scratchBytes);
    this.program = new Program(this.stage, flow.setup, scratchBytes);
    this.tool = isTool ? new Tool(flow, this.program) : undefined;
    this.arrivals = flow.arrivals
      .map((arrival, place) => ({ ...arrival, place }))
      .filter(({ packet }) => !isTool || !packet.isResponse);
    this.situation = {
      flow,
      program: this.program,
      isLossy: options.isLossy,
      mtu: flow.setup.connections[0]?.mtu ?? 1024,
      lastArrival: undefined,
      lastRnrNak: undefined,
      lastAnswer: undefined,
      lastRequest: undefined,
      sent: new Set(),
      sentSinceNak: new Set(),
    };
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
      if (this.failure === undefined && !this.isOver) this.conclude();
      return this.failure;
    } catch (error) {
      if (error instanceof Difference) return error;
      // What the captured host could do, ours refuses.
      if (error instanceof VerbsError || error instanceof Failure) {
        return new Difference(`${error.message} (here)`, this.lastFrame);
      }
      throw error;
    } finally {
      this.stage.dispose();
    }
  }

  /** Does the next thing; false when there is nothing left to do. */
  private advance(): boolean {
    const { stage } = this;
    const completions = this.program.takeCompletions();
    if (this.tool !== undefined) this.tool.check(completions);
    else this.completions.push(...completions);
    this.hasFailed ||= this.completions.some(({ status }) => status !== WC_SUCCESS);
    if (this.hasGivenUp(completions)) return false;
    if (this.give(false)) return true;
    if (!stage.isIdle) return this.wait();
    if (this.runProgram(false) || this.give(true) || this.skipAnswer()) return true;
    if (this.isDone) return false;
    // Only time can help now.
    if (this.isPatient) return this.wait();
    if (this.runProgram(true)) return true;
    throw this.stuck();
  }

  /** Whether ours has used up retry_cnt 7 where rxe goes on: it can be followed no further. */
  private hasGivenUp(completions: readonly OurCompletion[]): boolean {
    const { steps } = this.options;
    if (steps === undefined || this.flow.setup.connections[0]?.retry !== RETRY_ENDLESS) return false;
    const given = completions.find(({ status }) => status === WC_RETRY_EXC_ERR);
    if (given === undefined) return false;
    const isExpected = steps.some(({ command: { answers } }) =>
      answers.some((line) => line.startsWith(`WC id=${given.id} status=${WC_RETRY_EXC_ERR} `)),
    );
    if (isExpected) return false;
    const next = this.flow.requests[this.request];
    this.findings.depart(rules.RETRY_FOR_EVER, next?.number ?? this.lastFrame);
    this.isOver = true;
    return true;
  }

  private get isDone(): boolean {
    return this.nextIndex === Number.POSITIVE_INFINITY && this.currentStep === undefined;
  }

  private get currentStep(): Step | undefined {
    return this.options.steps?.[this.step];
  }

  /** Index of the first packet that has not had its turn. */
  private get nextIndex(): number {
    const { flow, options } = this;
    const request = options.steps === undefined ? undefined : flow.requests[this.request];
    return Math.min(
      this.arrivals[this.arrival]?.index ?? Number.POSITIVE_INFINITY,
      flow.answers[this.answer]?.index ?? Number.POSITIVE_INFINITY,
      request?.index ?? Number.POSITIVE_INFINITY,
    );
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

  // What arrives.

  /**
   * Gives the next arrival to our adapter if its time has come; `isIdle`: ours has nothing to do. Answers
   * that were all there before the next request was sent are taken in together.
   */
  private give(isIdle: boolean): boolean {
    const arrival = this.arrivals[this.arrival];
    if (arrival === undefined || !this.isSentBefore(arrival.index)) return false;
    if (!arrival.packet.isResponse) return isIdle && this.giveRequest(arrival);
    if (this.isHeld(arrival.place, isIdle)) return false;
    this.stage.beginBurst();
    for (;;) {
      this.giveAnswer(this.arrivals[this.arrival++] as PlacedArrival);
      const next = this.arrivals[this.arrival];
      if (next === undefined || !next.packet.isResponse || !this.isSentBefore(next.index)) break;
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
    const rule = isDropped(arrival, situation);
    if (rule !== undefined) this.findings.depart(rule, arrival.captured.number);
    else this.deliver(arrival);
    return true;
  }

  private deliver({ captured, packet }: PlacedArrival): void {
    this.findings.compared.add(captured.number);
    this.stage.deliver(asOurs(packet, this.program));
  }

  /** Whether ours has sent everything that the captured host had sent before `index`. */
  private isSentBefore(index: number): boolean {
    const { flow, options } = this;
    const request = options.steps === undefined ? undefined : flow.requests[this.request];
    const answer = flow.answers[this.answer];
    return (request?.index ?? index) >= index && (answer?.index ?? index) >= index;
  }

  private isHeld(place: number, isIdle: boolean): boolean {
    if (this.isLate(place)) return true;
    if (isIdle) return false;
    const next = this.flow.requests[this.request];
    const last = this.situation.lastRequest;
    if (next === undefined) return false;
    if (last === undefined) return true;
    return next.packet.psn === psnAfter(last.psn, last.span(this.situation.mtu));
  }

  /** Whether this answer reached the captured host only behind requests that ours has not sent yet. */
  private isLate(place: number): boolean {
    return this.request < (this.options.late.get(place) ?? 0);
  }

  // What ours sends.

  private onSent(sent: Packet): void {
    if (this.failure !== undefined) return;
    const packet = asCaptured(sent, this.flow.setup);
    this.failure = packet.isResponse ? this.compareAnswer(packet) : this.compareRequest(packet);
    // An answer that the captured host had at this point has to be there before the next packet.
    while (this.failure === undefined && this.arrivals[this.arrival]?.packet.isResponse) {
      if (!this.give(false)) break;
    }
  }

  private compareAnswer(ours: Packet): Difference | undefined {
    for (;;) {
      const theirs = this.flow.answers[this.answer];
      const difference = theirs === undefined ? undefined : differenceOf(ours, theirs.packet);
      if (theirs !== undefined && difference === undefined) {
        this.matchAnswer();
        return undefined;
      }
      const verdict = excuseAnswer(ours, theirs, difference, this.situation);
      if (verdict === undefined) {
        if (theirs === undefined || difference === undefined) {
          const frame = this.situation.lastArrival?.captured.number ?? 0;
          return new Difference(`answered with ${ours.describe()} here, not at all there`, frame);
        }
        const { field, ours: here, theirs: there } = difference;
        const what = `${theirs.packet.describe()}: ${field} is ${there} there, ${here} here`;
        return new Difference(`${what} (${ours.describe()})`, theirs.number);
      }
      this.findings.depart(verdict.rule, theirs?.number ?? this.lastFrame);
      if (verdict.action === 'same') this.matchAnswer();
      else if (verdict.action === 'skip-theirs') this.skipTheirs();
      if (verdict.action !== 'skip-theirs') return undefined;
    }
  }

  private compareRequest(ours: Packet): Difference | undefined {
    for (;;) {
      const theirs = this.flow.requests[this.request];
      const difference = theirs === undefined ? undefined : differenceOf(ours, theirs.packet);
      if (theirs !== undefined && difference === undefined) {
        this.matchRequest();
        return undefined;
      }
      const verdict = excuseRequest(ours, theirs, this.situation);
      if (verdict === undefined) {
        if (theirs === undefined || difference === undefined) {
          return new Difference(
            `sent ${ours.describe()} here, nothing there`,
            this.lastFrame,
            this.request,
          );
        }
        const { field, ours: here, theirs: there } = difference;
        const what = `${theirs.packet.describe()}: ${field} is ${there} there, ${here} here`;
        return new Difference(`${what} (${ours.describe()})`, theirs.number, this.request);
      }
      this.findings.depart(verdict.rule, theirs?.number ?? this.lastFrame);
      if (verdict.action === 'skip-ours') return undefined;
      if (verdict.action === 'same') {
        this.matchRequest();
        return undefined;
      }
      this.situation.lastRequest = theirs?.packet;
      this.request++;
    }
  }

  private matchAnswer(): void {
    const theirs = this.flow.answers[this.answer++];
    this.situation.lastAnswer = theirs.packet;
    this.findings.compared.add(theirs.number);
    this.progress();
  }

  private skipTheirs(): void {
    this.situation.lastAnswer = this.flow.answers[this.answer++].packet;
    this.progress();
  }

  private matchRequest(): void {
    const theirs = this.flow.requests[this.request++];
    const { situation } = this;
    const { psn } = theirs.packet;
    situation.lastRequest = theirs.packet;
    situation.sent.add(psn);
    situation.sentSinceNak.add(psn);
    this.findings.compared.add(theirs.number);
    this.recentAnswers = [];
    this.progress();
  }

  /** Ours has nothing to do and did not answer what the captured host answered: a rule may say why. */
  private skipAnswer(): boolean {
    const theirs = this.flow.answers[this.answer];
    if (theirs === undefined) return false;
    const verdict = excuseAnswer(undefined, theirs, undefined, this.situation);
    if (verdict === undefined) return false;
    this.findings.depart(verdict.rule, theirs.number);
    this.skipTheirs();
    return true;
  }

  // The program.

  /** Runs as much of the next command as can be; `isForced`: nothing else can happen any more. */
  private runProgram(isForced: boolean): boolean {
    const step = this.currentStep;
    if (step === undefined || (!isForced && step.after > this.nextIndex)) return false;
    const { command } = step;
    switch (command.name) {
      case 'post':
        return this.postNext(step, isForced);
      case 'recv':
        return this.receiveNext(command, isForced);
      case 'wait':
      case 'expect':
        return this.awaitNext(command);
      case 'check':
      case 'dump':
        this.checkMemory(command);
        return this.nextStep();
      default:
        this.program.execute(command);
        return this.nextStep();
    }
  }

  private nextStep(): boolean {
    this.step++;
    this.part = 0;
    this.progress();
    return true;
  }

  private postNext({ command, work }: Step, isForced: boolean): boolean {
    const next = work[this.part];
    if (next === undefined) return this.nextStep();
    if (!isForced && next.psns !== undefined) {
      const request = this.flow.requests[this.request];
      // A request whose packets the capture lacks was posted to a queue pair that had failed.
      if (next.first === undefined) {
        if (!this.hasFailed && this.nextIndex !== Number.POSITIVE_INFINITY) return false;
      } else if (request !== undefined && request.index < next.first) return false;
    }
    this.program.post(command, this.part++);
    this.progress();
    return true;
  }

  private receiveNext(command: CommandText, isForced: boolean): boolean {
    const count = command.answers.filter((answer) => answer.startsWith('POSTED')).length;
    if (this.part === count) return this.nextStep();
    const isEarly = this.flow.receives.refusals.some(
      ({ arrival, taken }) => taken <= this.receivesPosted && !this.isGiven(arrival),
    );
    if (isEarly && !isForced) return false;
    this.program.receive(command, this.part++);
    this.receivesPosted++;
    this.progress();
    return true;
  }

  private isGiven(place: number): boolean {
    return (this.arrivals[this.arrival]?.place ?? Number.POSITIVE_INFINITY) > place;
  }

  private awaitNext(command: CommandText): boolean {
    const lines = command.answers.filter((answer) => answer.startsWith('WC '));
    const line = lines[this.part];
    if (line === undefined) return this.nextStep();
    const words = new Words(line, command.place);
    const ours = pickCompletion(this.completions, words);
    if (ours === undefined) return false;
    this.completions.splice(this.completions.indexOf(ours), 1);
    const verdict = compareCompletion(ours, words, line, this.program, this.situation);
    if (typeof verdict === 'string') throw new Difference(verdict, this.lastFrame);
    if (verdict !== undefined) this.findings.depart(verdict, this.lastFrame);
    this.part++;
    this.progress();
    return true;
  }

  private checkMemory(command: CommandText): void {
    const verdict = checkMemory(command, this.program);
    if (typeof verdict === 'string') throw new Difference(verdict, this.lastFrame);
    if (verdict !== undefined) this.findings.depart(verdict, this.lastFrame);
  }

  // The end.

  /** Nothing of ours may be left over that the captured host did not have. */
  private conclude(): void {
    this.tool?.conclude(this.lastFrame);
    const { steps } = this.options;
    const last = steps?.findLast(({ command: { name } }) => name === 'wait' || name === 'expect');
    const hasDrained = last?.command.name === 'expect' && !last.command.words.has('n');
    const left = this.completions[0];
    if (!hasDrained || left === undefined) return;
    const kind = isOfReceive(left) ? 'receive' : 'request';
    throw new Difference(
      `${kind} ${left.id} completed here with status ${left.status}, and not there`,
      this.lastFrame,
    );
  }

  private get lastFrame(): number {
    const { lastArrival } = this.situation;
    const request = this.flow.requests[this.request - 1];
    const index = Math.max(lastArrival?.captured.index ?? -1, request?.index ?? -1);
    return (
      (lastArrival?.captured.index === index ? lastArrival?.captured.number : request?.number) ?? 0
    );
  }

  /** Says what never came. */
  private stuck(): Difference {
    const { flow } = this;
    const answer = flow.answers[this.answer];
    const request = this.options.steps === undefined ? undefined : flow.requests[this.request];
    const index = this.nextIndex;
    if (answer !== undefined && answer.index <= index) {
      return new Difference(`${answer.packet.describe()} there, no answer here`, answer.number);
    }
    if (request !== undefined && request.index <= index) {
      const what = `${request.packet.describe()} there, nothing sent here`;
      return new Difference(what, request.number, this.request);
    }
    const step = this.currentStep;
    if (step === undefined) return new Difference('the replay comes to no end', this.lastFrame);
    const line = step.command.answers.filter((said) => said.startsWith('WC '))[this.part];
    return new Difference(
      `${step.command.place}: '${line ?? step.command.name}' does not come about here`,
      this.lastFrame,
    );
  }
}

function bytesOf({ length }: Uint8Array): number {
  return length;
}
