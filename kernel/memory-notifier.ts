/**
 * Who has a say when memory is about to come online or go offline (register_memory_notifier,
 * mm/memory_hotplug.c, drivers/base/memory.c).
 *
 * Whoever plugs or unplugs memory asks first, and leaves everything as it is when somebody refuses.
 * Does not own the plugging.
 */

/** What is about to happen: MEM_GOING_ONLINE and MEM_GOING_OFFLINE of Linux. */
export type MemoryAction = 'going online' | 'going offline';

/** What has happened: MEM_ONLINE, MEM_OFFLINE, MEM_CANCEL_ONLINE and MEM_CANCEL_OFFLINE. */
export type MemoryOutcome = 'online' | 'offline' | 'online cancelled' | 'offline cancelled';

export interface MemoryNotifier {
  readonly name: string;
  /**
   * Asked before page frames [firstFrame, firstFrame + frameCount) come or go: why that must not be
   * (NOTIFY_BAD), or undefined. Never sleeps.
   */
  refuse(action: MemoryAction, firstFrame: number, frameCount: number): string | undefined;
  /** Told how it ended, if it had not refused. Never sleeps. */
  settled?(outcome: MemoryOutcome, firstFrame: number, frameCount: number): void;
}

/** Somebody's refusal. */
export interface MemoryVeto {
  readonly name: string;
  readonly reason: string;
}

export class MemoryNotifiers {
  private readonly chain: MemoryNotifier[] = [];

  register(notifier: MemoryNotifier): void {
    this.chain.push(notifier);
  }

  unregister(notifier: MemoryNotifier): void {
    const at = this.chain.indexOf(notifier);
    if (at >= 0) this.chain.splice(at, 1);
  }

  /**
   * Asks everybody, in order of registration; the first refusal ends it, and those who had agreed are
   * told that it is off.
   */
  ask(action: MemoryAction, firstFrame: number, frameCount: number): MemoryVeto | undefined {
    for (const [asked, notifier] of this.chain.entries()) {
      const reason = notifier.refuse(action, firstFrame, frameCount);
      if (reason === undefined) continue;
      const outcome = action === 'going online' ? 'online cancelled' : 'offline cancelled';
      for (const other of this.chain.slice(0, asked)) {
        other.settled?.(outcome, firstFrame, frameCount);
      }
      return { name: notifier.name, reason };
    }
    return undefined;
  }

  /** Tells everybody how it ended. */
  tell(outcome: MemoryOutcome, firstFrame: number, frameCount: number): void {
    for (const notifier of this.chain) notifier.settled?.(outcome, firstFrame, frameCount);
  }
}
