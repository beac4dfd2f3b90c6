/**
 * The thread of each NUMA node that reclaims before anybody has to wait (mm/vmscan.c: kswapd,
 * balance_pgdat). Woken when free memory falls to the low watermark, it works until the high one.
 */
import { Completion, type Sim } from '../../sched/completion.ts';
import type { Thread } from '../../sched/scheduler.ts';
import type { Memory } from '../memory.ts';
import type { MemoryNode } from '../physical/memory-node.ts';
import type { LruScanner } from './lru-scanner.ts';
import type { PageOut } from './page-out.ts';
import { ALL_GROUPS, DEF_PRIORITY, ScanControl, SWAP_CLUSTER_MAX } from './scan-control.ts';
import type { Shrinkers } from './shrinkers.ts';

export class Kswapd {
  private call = new Completion<void>('kswapd to be needed');
  readonly thread: Thread;
  /** Times that it was woken (pageoutrun). */
  runs = 0;

  constructor(
    private readonly memory: Memory,
    private readonly node: MemoryNode,
    private readonly scanner: LruScanner,
    private readonly pageOut: PageOut,
    private readonly shrinkers: Shrinkers,
  ) {
    this.thread = memory.scheduler.spawn(`kswapd${node.id}`, this.run());
  }

  /** Wakes it; does nothing while it works. */
  wake(): void {
    this.call.resolve();
  }

  private get isBalanced(): boolean {
    const { freeCounts } = this.memory.frames.freeLists;
    return freeCounts[this.node.id] >= this.node.watermarks.high;
  }

  private *run(): Sim<void> {
    for (;;) {
      yield this.call;
      this.call = new Completion<void>('kswapd to be needed');
      this.runs++;
      // Another round only if the last one achieved something: otherwise direct reclaim has to decide.
      while (!this.isBalanced && (yield* this.balance())) {}
    }
  }

  /** One round from the easiest priority to the most urgent; true when it freed anything. */
  private *balance(): Sim<boolean> {
    const { node, scanner, pageOut, shrinkers } = this;
    const scan = new ScanControl(SWAP_CLUSTER_MAX, ALL_GROUPS, true);
    let given = 0;
    for (let priority = DEF_PRIORITY; priority >= 0 && !this.isBalanced; priority--) {
      if (node.allUnreclaimable && priority < DEF_PRIORITY) break;
      scan.priority = priority;
      yield* scanner.shrinkNode(node, scan);
      const returned = yield* shrinkers.run(priority);
      if (returned > 0) node.lookAgain();
      given += returned;
      while (pageOut.inFlight >= SWAP_CLUSTER_MAX && !this.isBalanced)
        yield* pageOut.waitForWrites();
      if (scan.isDone) break;
    }
    if (scan.reclaimed === 0 && pageOut.inFlight > 0 && !this.isBalanced) {
      yield* pageOut.waitForWrites();
      return true;
    }
    return scan.reclaimed + given > 0;
  }
}
