/**
 * What the kernel and the administrator do to the processes of a memory storm: move pages between nodes,
 * compact, take memory out and put it back, reclaim. None of it may change a byte.
 */
import { type Host, type Sim, SystemCallError } from '../../kernel/index.ts';
import { migratePages, movePages } from '../../kernel/mm/migrate/move-pages.ts';
import { MS, type RandomStream, US } from '../../transport/index.ts';
import type { Actor } from './memory-actor.ts';
import { BASE, SPAN } from './memory-actor.ts';
import { PAGE } from './memory-model.ts';

export class Disturber {
  readonly done = new Map<string, number>();
  isOver = false;

  constructor(
    private readonly host: Host,
    private readonly actors: readonly Actor[],
    private readonly random: RandomStream,
  ) {}

  /** Moves pages of processes that are alive. */
  *migrator(): Sim<void> {
    const { random } = this;
    while (!this.isOver) {
      const { process } = this.actors[random.below(this.actors.length)] as Actor;
      const { state } = process.mm;
      if (state.alive && random.chance(800_000)) {
        const first = random.below(SPAN);
        const count = 1 + random.below(SPAN - first);
        const list = Array.from({ length: count }, (_, i) => BASE + (first + i) * PAGE);
        const node = random.below(2);
        yield* movePages(state, list, new Array<number>(count).fill(node), true);
        this.count('move_pages');
      } else if (state.alive) {
        yield* migratePages(state, random.below(2), random.below(2));
        this.count('migrate_pages');
      }
      yield* this.host.sleep(random.below(100 * US));
    }
  }

  *compactor(): Sim<void> {
    const { random, host } = this;
    while (!this.isOver) {
      const node = random.below(2);
      if (random.chance(500_000)) yield* host.ram.compaction.compactNode(node);
      else yield* host.ram.compaction.forAllocation(node, 4 + random.below(6));
      this.count('compaction');
      yield* host.sleep(random.below(1 * MS));
    }
  }

  *unplugger(): Sim<void> {
    const { random, host } = this;
    const { hotplug, frames } = host.ram;
    while (!this.isOver) {
      const sections = Math.floor(frames.count / hotplug.sectionFrames);
      const first = random.below(sections) * hotplug.sectionFrames;
      const range = { first, end: first + hotplug.sectionFrames };
      try {
        yield* hotplug.offline(range, random.below(3 * MS));
        this.count('offline');
        yield* host.sleep(random.below(2 * MS));
        yield* hotplug.online(range);
      } catch (error) {
        if (!(error instanceof SystemCallError) || error.errno !== 'EBUSY') throw error;
        this.count('offline EBUSY');
      }
      yield* host.sleep(random.below(1 * MS));
    }
  }

  *reclaimer(): Sim<void> {
    const { random, host } = this;
    while (!this.isOver) {
      yield* host.ram.reclaim.shrink(1 + random.below(200));
      this.count('reclaim');
      yield* host.sleep(random.below(500 * US));
    }
  }

  private count(name: string): void {
    this.done.set(name, (this.done.get(name) ?? 0) + 1);
  }
}
