/**
 * What a recording did not see of a rank's anonymous memory, and where that memory is: the faults of
 * Open MPI's two helper threads (their stacks, and the malloc arenas they made), and the recorder's own
 * data, the faults in which it filtered out. Both are known from the recorded mappings and calls.
 */
import type { Trace, TraceMapping } from '../trace/format.ts';
import { PAGE_BYTES } from '../workload/layout.ts';

/** The recorder is this library, preloaded into the program; its data follow it. */
const RECORDER = '/pmpitrace.so';
/** mmap flag of thread stacks. */
const MAP_STACK = 0x20000;

interface Area {
  readonly start: number;
  readonly end: number;
  readonly cause: 'helper_thread' | 'recorder';
}

export class Gaps {
  private readonly areas: readonly Area[];

  /** `mappings` are those at the end. */
  constructor({ events }: Trace, mappings: readonly TraceMapping[]) {
    const areas: Area[] = [];
    for (const event of events) {
      if (event.kind !== 'mmap' || event.file !== '') continue;
      if (!event.isHelper && (event.flags & MAP_STACK) === 0) continue;
      const { address, length } = event;
      areas.push({ start: address, end: address + length, cause: 'helper_thread' });
    }
    let recorderEnd = -1;
    for (const { start, end, file } of mappings) {
      if (file.endsWith(RECORDER) || (file === '' && start === recorderEnd)) {
        areas.push({ start, end, cause: 'recorder' });
      }
      if (file.endsWith(RECORDER)) recorderEnd = end;
    }
    this.areas = areas;
  }

  /** Why virtual page `page` may be missing, or undefined when nothing says that it may. */
  causeOf(page: number): 'helper_thread' | 'recorder' | undefined {
    const address = page * PAGE_BYTES;
    return this.areas.find(({ start, end }) => start <= address && address < end)?.cause;
  }
}
