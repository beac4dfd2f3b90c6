/** What our adapter sends, compared packet by packet with what the captured host sent. */

import { differenceOf, type FieldDifference, type Packet } from '../capture/packet.ts';
import type { CapturedPacket } from './capture.ts';
import { excuseAnswer, excuseRequest, type Situation, type Verdict } from './excuses.ts';
import { Difference, type Findings } from './findings.ts';

export class SentPackets {
  /** Requests and answers of the captured host that had their turn. */
  requests = 0;
  private answers = 0;
  /** Called when a packet was as captured. */
  onMatch: (packet: CapturedPacket) => void = () => {};

  /** `hasRequests`: the program is known, so requests are expected too. */
  constructor(
    private readonly hasRequests: boolean,
    private readonly situation: Situation,
    private readonly findings: Findings,
  ) {}

  get nextRequest(): CapturedPacket | undefined {
    return this.hasRequests ? this.situation.flow.requests[this.requests] : undefined;
  }

  get nextAnswer(): CapturedPacket | undefined {
    return this.situation.flow.answers[this.answers];
  }

  /** Index of the first packet that ours has not sent, or Infinity. */
  get nextIndex(): number {
    return Math.min(
      this.nextRequest?.index ?? Number.POSITIVE_INFINITY,
      this.nextAnswer?.index ?? Number.POSITIVE_INFINITY,
    );
  }

  /** The frame of the last thing that happened: an arrival or a request. */
  get lastFrame(): number {
    const { lastArrival, flow } = this.situation;
    const arrived = lastArrival?.captured;
    const sent = flow.requests[this.requests - 1];
    return ((sent?.index ?? -1) > (arrived?.index ?? -1) ? sent : arrived)?.number ?? 0;
  }

  /** Compares a packet of ours with the next captured one of its kind. */
  compare(ours: Packet): Difference | undefined {
    for (;;) {
      const theirs = ours.isResponse ? this.nextAnswer : this.nextRequest;
      const difference = theirs === undefined ? undefined : differenceOf(ours, theirs.packet);
      if (theirs !== undefined && difference === undefined) {
        this.pass(theirs, true);
        return undefined;
      }
      const verdict = ours.isResponse
        ? excuseAnswer(ours, theirs, difference, this.situation)
        : excuseRequest(ours, theirs, this.situation);
      if (verdict === undefined) return this.describe(ours, theirs, difference);
      this.findings.depart(verdict.rule, theirs?.number ?? this.lastFrame);
      if (verdict.action !== 'skip-ours') this.pass(theirs, verdict.action === 'same');
      if (verdict.action !== 'skip-theirs') return undefined;
    }
  }

  /** Goes on without the next captured answer, which ours does not give, if a rule says why. */
  skipAnswer(): boolean {
    const theirs = this.nextAnswer;
    if (theirs === undefined) return false;
    const verdict: Verdict | undefined = excuseAnswer(undefined, theirs, undefined, this.situation);
    if (verdict === undefined) return false;
    this.findings.depart(verdict.rule, theirs.number);
    this.pass(theirs, false);
    return true;
  }

  /** What never came, if it is the next thing that should: `before` is the index of what comes then. */
  missing(before: number): Difference | undefined {
    const { nextAnswer, nextRequest } = this;
    if (nextAnswer !== undefined && nextAnswer.index === Math.min(this.nextIndex, before)) {
      const what = `${nextAnswer.packet.describe()} there, no answer here`;
      return new Difference(what, nextAnswer.number);
    }
    if (nextRequest !== undefined && nextRequest.index === Math.min(this.nextIndex, before)) {
      const what = `${nextRequest.packet.describe()} there, nothing sent here`;
      return new Difference(what, nextRequest.number, this.requests);
    }
    return undefined;
  }

  /** The captured packet has had its turn; `isMatch`: ours has sent the same. */
  private pass(theirs: CapturedPacket | undefined, isMatch: boolean): void {
    if (theirs === undefined) return;
    const { situation } = this;
    const { packet } = theirs;
    if (packet.isResponse) {
      this.answers++;
      situation.lastAnswer = packet;
    } else {
      this.requests++;
      situation.lastRequest = packet;
      if (isMatch) {
        situation.sent.add(packet.psn);
        situation.sentSinceNak.set(packet.psn, packet);
      }
    }
    if (isMatch) this.findings.compared.add(theirs.number);
    this.onMatch(theirs);
  }

  private describe(
    ours: Packet,
    theirs: CapturedPacket | undefined,
    difference: FieldDifference | undefined,
  ): Difference {
    const request = ours.isResponse ? undefined : this.requests;
    if (theirs === undefined || difference === undefined) {
      const what = `${ours.describe()} is sent here, and nothing there`;
      return new Difference(what, this.lastFrame, request);
    }
    const { field, ours: here, theirs: there } = difference;
    const what = `${theirs.packet.describe()}: ${field} is ${there} there, ${here} here`;
    return new Difference(`${what} (${ours.describe()})`, theirs.number, request);
  }
}
