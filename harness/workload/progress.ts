/**
 * What a program has done so far: operations, bytes, latencies, and where it stands.
 *
 * The numbers of one side; `stats/` puts both together. Only the side that posts an operation
 * counts it.
 */
import type { TimePs } from '../../transport/index.ts';

/** Plain data, so that it can travel between processes. */
export interface WorkloadReport {
  /** Operations this side posted that completed with success. */
  readonly operations: number;
  /** Operations this side will post in all, where that is known beforehand. */
  readonly planned: number;
  /** Their payload, bytes. */
  readonly bytes: number;
  /** From posting to completion, one for each operation, ps. */
  readonly latenciesPs: readonly number[];
  /** When traffic started and when the last operation completed, ps; 0 when none did. */
  readonly startedPs: TimePs;
  readonly lastPs: TimePs;
  readonly finished: boolean;
  /** Words of this host in which others counted, and how many do not hold their sum. */
  readonly words: { readonly checked: number; readonly wrong: number };
  /** Where the program stands: a line of the recording, an operation. */
  readonly position: string;
}

export class Progress {
  operations = 0;
  bytes = 0;
  startedPs: TimePs = 0;
  lastPs: TimePs = 0;
  finished = false;
  words: WorkloadReport['words'] = { checked: 0, wrong: 0 };
  position = 'connecting';
  private readonly latenciesPs: number[] = [];

  constructor(readonly planned: number) {}

  /** One operation is complete. */
  count(bytes: number, postedPs: TimePs, completedPs: TimePs): void {
    this.operations++;
    this.bytes += bytes;
    this.lastPs = completedPs;
    this.latenciesPs.push(completedPs - postedPs);
  }

  report(): WorkloadReport {
    const { operations, planned, bytes, latenciesPs } = this;
    const { startedPs, lastPs, finished, words, position } = this;
    return {
      operations,
      planned,
      bytes,
      latenciesPs,
      startedPs,
      lastPs,
      finished,
      words,
      position,
    };
  }
}
