/**
 * When the commands of the captured programs ran, as far as the capture tells: which packets must
 * have passed before each of them, and which of a program's packets was the first of each request.
 *
 * The text lists commands in the order in which they ran, but not at which packet. A request comes
 * before its first packet, and what follows a completion comes after the packet that completed it.
 */

import { psnAdd, psnDistance } from '../../hca/index.ts';
import { OP_LAST, QPT_RC } from '../../transport/index.ts';
import { packetsOf } from '../capture/packet.ts';
import type { CapturedPacket } from './capture.ts';
import type { Flow } from './flow.ts';
import { type CommandText, Words } from './rcpeer-text.ts';
import { connectionSetup } from './text-setup.ts';

/** A work request for a send queue as it was posted. */
export interface PostedWork {
  readonly id: string;
  /** First and last PSN; undefined where it sends nothing. */
  readonly psns: readonly [first: number, last: number] | undefined;
  /** Index of the first packet that was sent once it was posted, where the capture has one. */
  first: number | undefined;
}

/** One command of a program with what is known of its time. */
export interface Step {
  readonly command: CommandText;
  /** Packets of the capture before this index had passed when it ran. */
  after: number;
  /** Of a post: its requests. */
  readonly work: readonly PostedWork[];
}

/** Commands that send nothing, though they are posted. */
const LOCAL = ['bind', 'inv'];
const READS_LIKE: Readonly<Record<string, boolean>> = {
  cas: true,
  faa: true,
  awrite: true,
  flush: true,
};

/** The steps of each flow's program. `commands` are those of all programs, in the order of the text. */
export function timelineOf(
  commands: readonly CommandText[],
  flows: readonly Flow[],
  packets: readonly CapturedPacket[],
): Step[][] {
  const tracks = flows.map((flow) => new Track(flow, packets));
  const steps: Step[] = [];
  let position = 0;
  for (const command of commands) {
    const track = tracks[command.peer];
    const step: Step = { command, after: position, work: track.post(command, position) };
    steps.push(step);
    position = Math.max(position, track.finish(command, position));
  }
  for (const track of tracks) track.settle();
  // What runs before a request is posted, or a receive is used, runs before its packets.
  let latest = Number.POSITIVE_INFINITY;
  for (let i = steps.length - 1; i >= 0; i--) {
    const step = steps[i];
    latest = Math.min(latest, tracks[step.command.peer].deadline(step));
    step.after = Math.min(step.after, latest);
  }
  return flows.map((_, peer) => steps.filter(({ command }) => command.peer === peer));
}

/** Follows one program. */
class Track {
  private nextPsn: number;
  private mtu: number;
  private searchFrom = 0;
  private readonly posted: PostedWork[] = [];
  /** Receives posted so far, and completed. */
  private receivesPosted = 0;
  private receivesDone = 0;
  private readonly receiveOf = new Map<CommandText, number>();

  constructor(
    private readonly flow: Flow,
    private readonly packets: readonly CapturedPacket[],
  ) {
    this.nextPsn = flow.setup.sendPsn;
    this.mtu = flow.setup.connections[0]?.mtu ?? 1024;
  }

  /** The requests of a post, with their PSNs. */
  post(command: CommandText, position: number): PostedWork[] {
    const { name, words, answers } = command;
    if (name === 'recv') {
      this.receiveOf.set(command, this.receivesPosted);
      this.receivesPosted += answers.filter((answer) => answer.startsWith('POSTED')).length;
    }
    if (name === 'connect' || name === 'rtr') this.mtu = connectionSetup(words, command.place).mtu;
    if (name === 'modify' && words.text('state') === 'reset') {
      this.nextPsn = this.flow.setup.sendPsn;
      this.searchFrom = position;
    }
    if (name !== 'post') return [];
    const work: PostedWork[] = [];
    for (const answer of answers) {
      if (!answer.startsWith('POSTED')) continue;
      const said = new Words(answer, command.place);
      const op = words.text('op') as string;
      const id = said.text('id') as string;
      if (LOCAL.includes(op)) {
        work.push({ id, psns: undefined, first: undefined });
        continue;
      }
      const bytes = READS_LIKE[op] === true ? 0 : said.number('len');
      const start = this.nextPsn;
      const count = packetsOf(bytes, this.mtu);
      this.nextPsn = psnAdd(start, count);
      // Its first packet may have been lost in front of the capture.
      const first = this.flow.requests.find(({ packet, index }) => {
        const offset = psnDistance(packet.psn, start);
        return index >= this.searchFrom && offset >= 0 && offset < count;
      })?.index;
      work.push({ id, psns: [start, psnAdd(start, count - 1)], first });
    }
    this.posted.push(...work);
    return work;
  }

  /** A request whose first packets were lost in front of the capture was posted before those behind it. */
  settle(): void {
    let first: number | undefined;
    for (const work of this.posted.toReversed()) {
      if (work.psns === undefined) continue;
      if (first !== undefined && (work.first ?? first) >= first) work.first = first;
      first = work.first;
    }
  }

  /** The index that had passed when the command was done, as far as its answers tell. */
  finish({ name, words, answers, place }: CommandText, position: number): number {
    if (name === 'sleep') return this.afterTime(position, words.number('ms'));
    if (name !== 'wait' && name !== 'expect') return position;
    let passed = position;
    for (const answer of answers) {
      if (answer.startsWith('WC ')) {
        passed = Math.max(passed, this.completionIndex(new Words(answer, place), answer));
      }
    }
    const waited = answers.find((answer) => answer.startsWith('WAITED'));
    const isTimeOut = name === 'expect' ? !words.has('n') : waited === undefined;
    if (!isTimeOut) return passed;
    return this.afterTime(passed, words.number('ms', name === 'expect' ? 500 : 5000));
  }

  /** The index before which a step must have run. */
  deadline({ command, work }: Step): number {
    const receive = this.receiveOf.get(command);
    // Of other services a message without a receive is lost without a word.
    if (receive !== undefined && this.flow.setup.type === QPT_RC) {
      return this.flow.receives.starts[receive] ?? Number.POSITIVE_INFINITY;
    }
    return work.find(({ first }) => first !== undefined)?.first ?? Number.POSITIVE_INFINITY;
  }

  /** Where the first packet stands that was captured `ms` after what had passed at `position`. */
  private afterTime(position: number, ms: number): number {
    const lastPosted = this.posted.at(-1)?.first;
    const known = Math.max(position - 1, lastPosted ?? 0);
    const endUs = (this.packets[Math.min(known, this.packets.length - 1)]?.timeUs ?? 0) + ms * 1000;
    const at = this.packets.findIndex(({ index, timeUs }) => index >= position && timeUs >= endUs);
    return at < 0 ? this.packets.length : at;
  }

  /** One past the packet that brought a completion about; 0 where that cannot be told. */
  private completionIndex(words: Words, line: string): number {
    const isSuccess = words.text('status') === '0';
    if (/ op=recv/.test(line)) return (this.flow.receives.ends[this.receivesDone++] ?? -1) + 1;
    const id = words.text('id') as string;
    const done = this.posted.find((work) => work.id === id);
    if (done?.psns === undefined || done.first === undefined) return 0;
    const [start, end] = done.psns;
    const from = done.first;
    if (this.flow.setup.type !== QPT_RC) {
      const last = this.flow.requests.find(
        ({ index, packet }) => index >= from && packet.psn === end,
      );
      return (last?.index ?? -1) + 1;
    }
    const decisive = this.flow.arrivals.find(({ index, packet }) => {
      if (index < from || !packet.isResponse || packet.isRnrNak) return false;
      if (!isSuccess) return packet.isNak && packet.syndromeValue > 0 && packet.psn === start;
      if (packet.isNak) return psnDistance(packet.psn, end) > 0;
      return psnDistance(packet.psn, end) >= 0 && (packet.flags & OP_LAST) !== 0;
    });
    return (decisive?.index ?? -1) + 1;
  }
}
