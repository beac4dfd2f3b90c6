/**
 * What a device context owns, in order of creation, so that it can all be taken away when its process
 * is gone (drivers/infiniband/core/rdma_core.c, uverbs_destroy_ufile_hw).
 */
import { assert } from '../../transport/index.ts';
import { VerbsError } from '../errno.ts';
import type { Sim } from '../sched/completion.ts';

export class OwnedObjects {
  private readonly destroyers = new Map<unknown, () => Sim<void>>();

  /** `destroy` takes the object away, and out of here. */
  add(object: unknown, destroy: () => Sim<void>): void {
    this.destroyers.set(object, destroy);
  }

  remove(object: unknown): void {
    this.destroyers.delete(object);
  }

  /**
   * Destroys everything, the newest first; what is still in use (EBUSY) is tried again once its users
   * are gone.
   */
  *destroyAll(): Sim<void> {
    while (this.destroyers.size > 0) {
      const before = this.destroyers.size;
      for (const destroy of [...this.destroyers.values()].reverse()) {
        try {
          yield* destroy();
        } catch (error) {
          if (!(error instanceof VerbsError) || error.errno !== 'EBUSY') throw error;
        }
      }
      assert(this.destroyers.size < before, 'objects of a process keep each other in use');
    }
  }
}
