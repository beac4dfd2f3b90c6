/**
 * Whoever can give memory back when asked: caches of the kernel and of drivers (mm/shrinker.c).
 *
 * Reclaim asks each of them for a share of what it has, the larger the more urgent it gets. This is how the
 * memory manager asks a registration cache for the regions that nobody uses (Wyckoff in seed 000).
 */
import type { Sim } from '../../sched/completion.ts';

/** struct shrinker. */
export interface Shrinker {
  readonly name: string;
  /** Pages that it could give back now; 0 when it has none. */
  count(): number;
  /**
   * Gives back about `pageCount` pages and returns how many it did; may sleep. Several reclaimers may ask
   * at once, and each waits for its answer: that is what slows them to the pace of whoever gives.
   */
  scan(pageCount: number): Sim<number>;
}

/** Pages that a shrinker is asked for in one go (SHRINK_BATCH). */
const SHRINK_BATCH = 128;
/** What an object costs to make again, in disk seeks (DEFAULT_SEEKS): four of that many parts are asked for. */
const SEEKS = 2;

export class Shrinkers {
  private readonly shrinkers: Shrinker[] = [];
  /** Pages that shrinkers were asked for, and gave (slabs_scanned; nr_reclaimed of shrink_slab). */
  asked = 0;
  given = 0;

  /** Adds a shrinker (register_shrinker). */
  register(shrinker: Shrinker): void {
    this.shrinkers.push(shrinker);
  }

  /** Takes it off again; its scan may still be running. */
  unregister(shrinker: Shrinker): void {
    const at = this.shrinkers.indexOf(shrinker);
    if (at >= 0) this.shrinkers.splice(at, 1);
  }

  /** Asks each shrinker for its share at `priority` (12: little, 0: everything); returns what they gave. */
  *run(priority: number): Sim<number> {
    let given = 0;
    for (const shrinker of [...this.shrinkers]) {
      const available = shrinker.count();
      if (available <= 0) continue;
      const share = Math.floor(((available >>> priority) * 4) / SEEKS);
      // Linux carries small shares over to the next time; here the last rounds ask for a whole batch.
      const wanted = Math.min(available, priority === 0 ? Math.max(share, SHRINK_BATCH) : share);
      if (wanted === 0) continue;
      this.asked += wanted;
      given += yield* shrinker.scan(wanted);
    }
    this.given += given;
    return given;
  }
}
