/**
 * A client of the notifier list that follows every rule unless told otherwise: a table of
 * entries that it fills on request and empties when told to, and a log of what it was told.
 */
import {
  type AddressSpace,
  type Invalidation,
  type InvalidationCause,
  type MmuNotifier,
  PAGE_BYTES,
  type Sim,
} from '../../kernel/index.ts';

export class Gadget implements MmuNotifier {
  /** Frame of each virtual page that it maps. */
  readonly entries = new Map<number, number>();
  /** Callbacks in order: `begin unmap`, `page swap`, `age`, `end unmap`, `release`. */
  readonly calls: string[] = [];
  /** Pages that were used through it since it was last asked. */
  readonly young = new Set<number>();
  /** Pages that it has written. */
  readonly written = new Set<number>();
  /** Runs inside each callback, after it is logged. */
  during: (call: string, range?: Invalidation) => Sim<void> = function* () {};
  /** Whether it drops entries when told to. */
  obeys = true;

  constructor(
    readonly mm: AddressSpace,
    readonly name = 'gadget',
  ) {}

  /** Enters the page at `address`, which must be present. */
  map(address: number): void {
    const page = address / PAGE_BYTES;
    const frame = this.mm.pages.followPage(page, false);
    this.mm.notifiers.references.insert(this, page, frame);
    this.entries.set(page, frame);
  }

  drop(start: number, end: number): void {
    const { references } = this.mm.notifiers;
    for (const [page, frame] of [...this.entries]) {
      if (page * PAGE_BYTES < start || page * PAGE_BYTES >= end) continue;
      if (this.written.delete(page)) this.mm.memory.frames.markDirty(frame);
      references.drop(this, page, frame);
      this.entries.delete(page);
    }
  }

  *release(): Sim<void> {
    yield* this.hear('release');
    if (this.obeys) this.drop(0, 2 ** 47);
  }

  *agePage(address: number): Sim<boolean> {
    yield* this.hear('age');
    return this.young.delete(address / PAGE_BYTES);
  }

  *invalidatePage(address: number, cause: InvalidationCause): Sim<void> {
    yield* this.hear(`page ${cause}`);
    if (this.obeys) this.drop(address, address + PAGE_BYTES);
  }

  *invalidateRangeBegin(range: Invalidation): Sim<void> {
    yield* this.hear(`begin ${range.cause}`, range);
    if (this.obeys) this.drop(range.start, range.end);
  }

  *invalidateRangeEnd(range: Invalidation): Sim<void> {
    yield* this.hear(`end ${range.cause}`, range);
  }

  private *hear(call: string, range?: Invalidation): Sim<void> {
    this.calls.push(call);
    yield* this.during(call, range);
  }
}
