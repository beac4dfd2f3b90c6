/**
 * The program of one rank: carries out the recorded lines in order, memory by its system calls and
 * page touches, messages through `messages.ts`.
 *
 * It waits for messages where the recorded program did: for those inside a collective at its `ret`,
 * for others at their `done`, for those without a call at the next `call`; and wherever a buffer is
 * used again or goes away.
 */
import { PAGE_BYTES, type Sim, SystemCallError } from '../../kernel/index.ts';
import { Failure, type TimePs } from '../../transport/index.ts';
import type { TraceEvent } from '../trace/format.ts';
import type { Outstanding } from '../workload/outstanding.ts';
import { type LibcCalls, RecordedMemory } from '../workload/recorded-memory.ts';
import type { RankMessages } from './messages.ts';
import type { RecordedRank } from './recording.ts';
import type { RankProcess, ReplayWorld } from './world.ts';

/** How far below its mapping a stack may be used: it grows at the next touch (ulimit -s). */
const STACK_GROWTH = 8 * 2 ** 20;

export class Rank {
  /** Lines carried out. */
  done = 0;
  /** Address-space calls and pages touched. */
  memoryEvents = 0;
  /** Simulated time that those took. */
  memoryPs: TimePs = 0;
  finished = false;
  private readonly memory: RecordedMemory;

  constructor(
    private readonly world: ReplayWorld,
    readonly process: RankProcess,
    readonly recorded: RecordedRank,
    readonly messages: RankMessages | undefined,
    private readonly outstanding: Outstanding,
    /** Where the rank stands, for people. */
    readonly standing: { position: string },
    libc: LibcCalls = process.mm,
  ) {
    const beforeUnmap = (address: number, length: number): Sim<void> =>
      this.outstanding.waitForRange(address, length);
    this.memory = new RecordedMemory(process.mm, recorded.trace, beforeUnmap, world.files, libc);
  }

  *run(): Sim<void> {
    const { messages, recorded, outstanding } = this;
    const { node } = this.world.host;
    yield* this.memory.restore();
    if (messages) yield* messages.open();
    for (const event of recorded.events) {
      this.done++;
      switch (event.kind) {
        case 'tx':
        case 'ptx':
        case 'rx':
        case 'prx':
          this.checkMapped(event.line, event.address, event.length, 'buffer');
          if (messages) {
            this.standing.position = this.placeOf(event);
            yield* messages.meet(event);
          }
          break;
        case 'call':
          yield* outstanding.waitForId(0);
          break;
        case 'ret':
        case 'done':
          if (messages) this.standing.position = this.placeOf(event);
          yield* outstanding.waitForId(event.id);
          break;
        case 'rma':
          break;
        default: {
          const start = node.now;
          yield* this.change(event);
          this.memoryPs += node.now - start;
        }
      }
    }
    yield* outstanding.waitForAll();
    if (messages) yield* messages.close();
    this.standing.position = 'done';
    this.finished = true;
  }

  /** A line about memory; what the kernel refuses, the recorded program cannot have done. */
  private *change(event: TraceEvent): Sim<void> {
    const isFault = event.kind === 'pf';
    this.memoryEvents += isFault ? event.pageCount : 1;
    if (isFault) this.checkMapped(event.line, event.address, event.pageCount * PAGE_BYTES, 'page');
    try {
      yield* this.memory.step(event);
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      throw this.invalid(event.line, error.message, 'a call that succeeds');
    }
  }

  private placeOf({ line, kind }: TraceEvent): string {
    return `${this.recorded.trace.file}:${line} ${kind}`;
  }

  /** What is not mapped was not touched; but a stack grows. */
  private checkMapped(line: number, address: number, length: number, what: string): void {
    if (this.process.mm.isMapped(address, length)) return;
    const stack = this.recorded.trace.mappings.find(({ area }) => area === 'stack');
    if (stack && address >= stack.start - STACK_GROWTH && address + length <= stack.end) return;
    const range = `0x${address.toString(16)} + ${length}`;
    throw this.invalid(line, `the ${what} ${range} is not mapped`, 'mapped memory');
  }

  private invalid(line: number, message: string, expected: string): Failure {
    const place = `${this.recorded.trace.file}:${line}`;
    return new Failure('E_TRACE_INVALID', message, place, expected);
  }
}
