/**
 * Shadow page table entries (sptes) of a virtual machine: a pool of structs of arrays, so that dropping
 * a hundred thousand of them makes no garbage.
 *
 * Each entry stands in two places: in the shadow table of one guest address space, under its guest
 * virtual page, and in the rmap chain of one guest frame (virt/kvm: rmap_add, rmap_remove), of which
 * `next` is the link. Owns the pool; locks, references and notifiers are `kvm.ts`'s.
 */

/** Flags of an entry. */
export const SPTE_WRITE = 1;
export const SPTE_ACCESSED = 2;
export const SPTE_DIRTY = 4;

/** No entry: the end of a chain. */
export const NO_SPTE = -1;

export class ShadowEntries {
  frames = new Int32Array(64);
  flags = new Uint8Array(64);
  /** The next entry of the same guest frame, NO_SPTE at the end. */
  next = new Int32Array(64);
  /** Where it stands: number of the guest address space, and the guest virtual page in it. */
  spaces = new Int32Array(64);
  pages = new Float64Array(64);
  /** Entries in use. */
  count = 0;
  private free = NO_SPTE;
  private used = 0;

  /** A new entry for `frame`, at the head of the chain that begins with `next`; returns its number. */
  add(frame: number, flags: number, space: number, page: number, next: number): number {
    const entry = this.take();
    this.frames[entry] = frame;
    this.flags[entry] = flags;
    this.spaces[entry] = space;
    this.pages[entry] = page;
    this.next[entry] = next;
    this.count++;
    return entry;
  }

  /** Gives an entry back that is in no chain any more. */
  give(entry: number): void {
    this.next[entry] = this.free;
    this.free = entry;
    this.count--;
  }

  private take(): number {
    if (this.free !== NO_SPTE) {
      const entry = this.free;
      this.free = this.next[entry];
      return entry;
    }
    if (this.used === this.frames.length) this.grow();
    return this.used++;
  }

  private grow(): void {
    const length = this.used * 2;
    const [frames, flags, next, spaces, pages] = [
      new Int32Array(length),
      new Uint8Array(length),
      new Int32Array(length),
      new Int32Array(length),
      new Float64Array(length),
    ];
    frames.set(this.frames);
    flags.set(this.flags);
    next.set(this.next);
    spaces.set(this.spaces);
    pages.set(this.pages);
    this.frames = frames;
    this.flags = flags;
    this.next = next;
    this.spaces = spaces;
    this.pages = pages;
  }
}
