/**
 * Address-space and fault events per CPU second: a recorded MPI run, its memory alone.
 *
 * An event is a system call of the address space or a page that the program faulted on. All four ranks
 * of qe-mmap128k, whose allocator maps and unmaps every large buffer: 2.2 million page faults and 23
 * thousand calls. Reading the files and making the processes is not counted.
 */
import { type Recording, readRecording } from '../replay/recording.ts';
import { prepareMemoryReplay } from '../replay/replay.ts';
import { cpuSeconds } from './measure.ts';

let recording: Recording | undefined;

/** Replays the run once. */
export function replayEventsPerCpuSecond(): number {
  recording ??= readRecording('qe-mmap128k');
  const run = prepareMemoryReplay(recording);
  const start = cpuSeconds();
  const events = run();
  return events / (cpuSeconds() - start);
}
