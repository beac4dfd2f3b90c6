/**
 * What a device context owns, in order of creation, so that it can all be taken away when its process
 * is gone (drivers/infiniband/core/rdma_core.c, uverbs_destroy_ufile_hw).
 */
import { assert } from '../../transport/index.ts';
import { VerbsError } from '../errno.ts';
import { Completion, type Sim, wait } from '../sched/completion.ts';

export class OwnedObjects {
  private readonly destroyers = new Map<unknown, () => Sim<void>>();
  /** Objects that are being destroyed. */
  private readonly ending = new Map<unknown, Completion<void>>();
  /** How many are being created, and the end of the last of them. */
  private creating = 0;
  private created = new Completion<void>('objects of the adapter to be created');

  /**
   * Creates an object by `body`, which throws where that fails; `destroy` takes it away, and out of here.
   * Whoever closes the device meanwhile waits for it: a program may be killed while it registers memory.
   */
  *create<T>(body: Sim<T>, destroy: (object: T) => Sim<void>): Sim<T> {
    this.creating++;
    try {
      const object = yield* body;
      this.destroyers.set(object, () => destroy(object));
      return object;
    } finally {
      if (--this.creating === 0) {
        const { created } = this;
        this.created = new Completion<void>(created.purpose);
        created.resolve();
      }
    }
  }

  /**
   * Destroys an object by `body`, which throws where that fails. Whoever closes the device meanwhile waits
   * for what comes of it: a program may be killed while it deregisters.
   */
  *destroy(object: unknown, body: Sim<unknown>): Sim<void> {
    const isFirst = !this.ending.has(object);
    const over = new Completion<void>('an object of the adapter to be destroyed');
    if (isFirst) this.ending.set(object, over);
    try {
      yield* body;
      this.destroyers.delete(object);
    } finally {
      if (isFirst) this.ending.delete(object);
      over.resolve();
    }
  }

  /**
   * Destroys everything, the newest first; what is still in use (EBUSY) is tried again once its users
   * are gone.
   */
  *destroyAll(): Sim<void> {
    for (;;) {
      while (this.creating > 0) yield* wait(this.created);
      if (this.destroyers.size === 0) return;
      const before = this.destroyers.size;
      for (const [object, destroy] of [...this.destroyers].reverse()) {
        const ending = this.ending.get(object);
        if (ending !== undefined) yield* wait(ending);
        if (!this.destroyers.has(object)) continue;
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
