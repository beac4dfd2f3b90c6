/**
 * The commands of a captured program, run on our host when their time has come, and what they answered
 * there compared with what comes of them here.
 */
import { WC_SUCCESS } from '../../transport/index.ts';
import { checkMemory } from './check-memory.ts';
import { compareCompletion, isOfReceive, pickCompletion } from './completions.ts';
import type { Situation } from './excuses.ts';
import { Difference, type Findings } from './findings.ts';
import type { OurCompletion, Program } from './program.ts';
import { type CommandText, Words } from './rcpeer-text.ts';
import type { Rule } from './rxe-profile.ts';
import type { SentPackets } from './sent-packets.ts';
import type { Step } from './timeline.ts';

export class Script {
  private step = 0;
  /** Within the step: requests posted, receives posted, or completions seen. */
  private part = 0;
  private receivesPosted = 0;
  /** Completions of ours that no line of the text has asked for yet. */
  private readonly completions: OurCompletion[] = [];
  private hasFailed = false;

  constructor(
    readonly steps: readonly Step[],
    private readonly program: Program,
    private readonly sent: SentPackets,
    private readonly situation: Situation,
    private readonly findings: Findings,
  ) {}

  get isDone(): boolean {
    return this.step === this.steps.length;
  }

  /** Notes completions of ours. */
  complete(completions: readonly OurCompletion[]): void {
    this.completions.push(...completions);
    this.hasFailed ||= completions.some(({ status }) => status !== WC_SUCCESS);
  }

  /**
   * Runs as much of the next command as can be, and returns whether that was anything. Packets before
   * `index`, and arrivals before place `arrival`, had their turn; `isForced`: nothing else can happen.
   */
  run(index: number, arrival: number, isForced: boolean): boolean {
    const step = this.steps[this.step];
    if (step === undefined || (!isForced && step.after > index)) return false;
    const { command } = step;
    switch (command.name) {
      case 'post':
        return this.post(step, index, isForced);
      case 'recv':
        return this.receive(command, arrival, isForced);
      case 'wait':
      case 'expect':
        return this.expect(command);
      case 'check':
      case 'dump':
        this.judge(checkMemory(command, this.program));
        return this.next();
      default:
        this.program.execute(command);
        return this.next();
    }
  }

  /** What the program waits for, for messages. */
  describe(): string {
    const command = this.steps[this.step]?.command;
    if (command === undefined) return 'the replay comes to no end';
    const line = linesOf(command)[this.part];
    return `${command.place}: '${line ?? command.name}' does not come about here`;
  }

  /** Whether a line of the text has that a request ended with this status. */
  expects(id: string, status: number): boolean {
    return this.steps.some(({ command: { answers } }) =>
      answers.some((line) => line.startsWith(`WC id=${id} status=${status} `)),
    );
  }

  /** Nothing may be left over here that the program would have seen. Throws Difference. */
  conclude(): void {
    const last = this.steps.findLast(({ command: { name } }) => /^(wait|expect)$/.test(name));
    const hasDrained = last?.command.name === 'expect' && !last.command.words.has('n');
    const [left] = this.completions;
    if (!hasDrained || left === undefined) return;
    const kind = isOfReceive(left) ? 'receive' : 'request';
    const what = `${kind} ${left.id} completed here with status ${left.status}, and not there`;
    throw new Difference(what, this.sent.lastFrame);
  }

  private next(): boolean {
    this.step++;
    this.part = 0;
    return true;
  }

  private post({ command, work }: Step, index: number, isForced: boolean): boolean {
    const next = work[this.part];
    if (next === undefined) return this.next();
    if (!isForced && next.psns !== undefined) {
      const request = this.sent.nextRequest;
      // A request whose packets the capture lacks was posted to a queue pair that had failed.
      if (next.first === undefined) {
        if (!this.hasFailed && index !== Number.POSITIVE_INFINITY) return false;
      } else if (request !== undefined && request.index < next.first) return false;
    }
    this.program.post(command, this.part++);
    return true;
  }

  private receive(command: CommandText, arrival: number, isForced: boolean): boolean {
    const count = command.answers.filter((answer) => answer.startsWith('POSTED')).length;
    if (this.part === count) return this.next();
    const { refusals } = this.situation.flow.receives;
    const isEarly = refusals.some(
      (refusal) => refusal.taken <= this.receivesPosted && refusal.arrival >= arrival,
    );
    if (isEarly && !isForced) return false;
    this.program.receive(command, this.part++);
    this.receivesPosted++;
    return true;
  }

  private expect(command: CommandText): boolean {
    const line = linesOf(command)[this.part];
    if (line === undefined) return this.next();
    const words = new Words(line, command.place);
    const ours = pickCompletion(this.completions, words);
    if (ours === undefined) return false;
    this.completions.splice(this.completions.indexOf(ours), 1);
    this.judge(compareCompletion(ours, words, line, this.program, this.situation));
    this.part++;
    return true;
  }

  /** A difference ends the replay, a rule is noted. */
  private judge(verdict: Rule | string | undefined): void {
    if (typeof verdict === 'string') throw new Difference(verdict, this.sent.lastFrame);
    if (verdict !== undefined) this.findings.depart(verdict, this.sent.lastFrame);
  }
}

function linesOf({ answers }: CommandText): string[] {
  return answers.filter((answer) => answer.startsWith('WC '));
}
