/**
 * A process of a host, as its programs see it: memory, and the adapter.
 *
 * Its end takes Linux' way (kernel/exit.c, do_exit): first the address space goes (exit_mm: notifiers
 * are released, then mappings are torn down), then open files are closed, among them the device
 * (ib_uverbs_close): what is registered and connected stays with the adapter until then, so pinned
 * pages outlive the mappings, and a page fault that comes in between cannot be served any more.
 */
import type { Verbs } from './driver/verbs.ts';
import type { AddressSpace } from './mm/address-space.ts';
import type { Sim } from './sched/completion.ts';

export class HostProcess {
  /** False once it has begun to end. */
  isAlive = true;

  constructor(
    readonly name: string,
    readonly mm: AddressSpace,
    readonly verbs: Verbs,
  ) {}

  /**
   * Starts another program: it has fresh, empty memory, and the device is closed (O_CLOEXEC), so that it
   * has to register and connect anew.
   */
  *exec(): Sim<void> {
    yield* this.mm.exec();
    yield* this.verbs.close();
  }

  /** Ends the process; returns when nothing of it is left in memory or in the adapter. */
  *exit(): Sim<void> {
    if (!this.isAlive) return;
    this.isAlive = false;
    yield* this.mm.exit();
    yield* this.verbs.close();
  }
}
