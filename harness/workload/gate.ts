/**
 * The gate of something that operations use: open while they may, counting those that do.
 *
 * What is being replaced is *closed*: operations wait at its gate, those outstanding finish, then it
 * changes and opens again. Both sides keep a gate for every region and window of the scenario.
 */
import { Completion, type Sim, wait } from '../../kernel/index.ts';
import { assert } from '../../transport/index.ts';

/** A range that an outstanding operation uses. */
interface Use {
  readonly start: number;
  readonly end: number;
}

export class Gate {
  /** Resolved while operations may use it. */
  open = new Completion<void>();
  /** Remote key: of its own registration or binding, or as the peer advertised it. */
  rkey = 0;
  private readonly uses = new Set<Use>();
  private unused = new Completion<void>();

  /** `index` is its number among all gates, the same on both sides; `what` names it. */
  constructor(
    readonly index: number,
    private readonly what: string,
    readonly address: number,
  ) {
    this.close();
  }

  /** From here on operations wait. */
  close(): void {
    this.open = new Completion<void>(`${this.what} to be usable`);
  }

  /** Registers a use of `length` bytes at `offset`; call the result when it is over. */
  use(offset: number, length: number): () => void {
    const use = { start: offset, end: offset + length };
    this.uses.add(use);
    return () => {
      this.uses.delete(use);
      if (this.uses.size === 0) this.unused.resolve();
    };
  }

  /** True when an outstanding operation uses any of these bytes. */
  inUse(offset: number, length: number): boolean {
    for (const { start, end } of this.uses) {
      if (start < offset + length && end > offset) return true;
    }
    return false;
  }

  /** Waits until no operation is outstanding on it. Close it first. */
  *drain(): Sim<void> {
    assert(!this.open.done, 'a gate is drained while operations may still pass');
    while (this.uses.size > 0) {
      this.unused = new Completion<void>(`operations on ${this.what}`);
      yield* wait(this.unused);
    }
  }
}
