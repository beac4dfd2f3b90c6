/**
 * A sleeping reader-writer lock in virtual time: the mmap lock (kernel/locking/rwsem.c).
 *
 * First come, first served: a reader that comes after a waiting writer waits behind it, which is how
 * Linux keeps page faults from starving munmap. Readers that stand together are let in together.
 */
import { assert } from '../../transport/index.ts';
import { Completion, type Sim } from './completion.ts';

interface Turn {
  readonly write: boolean;
  readonly granted: Completion<void>;
}

export class RwLock {
  private readers = 0;
  private writing = false;
  private turns: Turn[] = [];

  constructor(private readonly name: string) {}

  get idle(): boolean {
    return this.readers === 0 && !this.writing && this.turns.length === 0;
  }

  /** True while somebody holds it for writing. */
  get writeLocked(): boolean {
    return this.writing;
  }

  /** True while somebody holds it for reading. */
  get readLocked(): boolean {
    return this.readers > 0;
  }

  /** Takes the lock for reading if that needs no wait: the fast path of a page fault. */
  tryLockRead(): boolean {
    if (this.writing || this.turns.length > 0) return false;
    this.readers++;
    return true;
  }

  *lockRead(): Sim<void> {
    if (!this.tryLockRead()) yield this.queue(false);
  }

  /** Takes the lock for writing if that needs no wait. */
  tryLockWrite(): boolean {
    if (!this.idle) return false;
    this.writing = true;
    return true;
  }

  *lockWrite(): Sim<void> {
    if (!this.tryLockWrite()) yield this.queue(true);
  }

  unlockRead(): void {
    assert(this.readers > 0, 'a lock is not held for reading');
    this.readers--;
    this.grant();
  }

  unlockWrite(): void {
    assert(this.writing, 'a lock is not held for writing');
    this.writing = false;
    this.grant();
  }

  private queue(write: boolean): Completion<void> {
    const granted = new Completion<void>(`${write ? 'write' : 'read'} lock ${this.name}`);
    this.turns.push({ write, granted });
    return granted;
  }

  private grant(): void {
    while (this.turns.length > 0 && !this.writing) {
      if (this.turns[0].write) {
        if (this.readers > 0) return;
        this.writing = true;
      } else this.readers++;
      (this.turns.shift() as Turn).granted.resolve();
    }
  }
}
