/**
 * Where a registration cache hears that memory has changed: the interface, and the source that says
 * nothing, which is what MPI libraries had who trusted in luck (Wyckoff in seed 000).
 */
import type { Sim } from '../sched/completion.ts';

/** The answer of a source that has lost events: anything may have changed. */
export const ALL_ENTRIES = 'all';

/** Numbers of the entries whose range has changed, each once; or ALL_ENTRIES. */
export type ChangedEntries = readonly number[] | typeof ALL_ENTRIES;

export interface InvalidationSource {
  readonly name: 'none' | 'hooks' | 'ummunotify' | 'perf';
  /** Events that were lost so far, each of which could have been about an entry. */
  readonly eventsLost: number;
  /**
   * Begins to watch [start, end) for the cache entry `cookie`. Whatever changes there from now on is
   * reported by a later `collect`.
   * @throws SystemCallError ENOMEM or EMFILE at a limit of the process: nothing is watched then
   */
  watch(cookie: number, start: number, end: number): Sim<void>;
  /** Stops watching; what was not collected of that entry is forgotten. */
  unwatch(cookie: number): Sim<void>;
  /** What has changed since the last call; the cache asks before every look-up. */
  collect(): Sim<ChangedEntries>;
  /** Gives back what the source holds in the kernel. */
  close(): Sim<void>;
}

/** Hears nothing: entries stay valid in the eyes of the cache whatever happens to memory. */
export class NoSource implements InvalidationSource {
  readonly name = 'none';
  readonly eventsLost = 0;

  *watch(_cookie: number, _start: number, _end: number): Sim<void> {}

  *unwatch(_cookie: number): Sim<void> {}

  *collect(): Sim<ChangedEntries> {
    yield 0;
    return [];
  }

  *close(): Sim<void> {}
}
