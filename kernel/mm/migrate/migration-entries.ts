/**
 * Where the migration entries of each page on its way are (mm/migrate.c; linux/swapops.h).
 *
 * A migration entry stands in a page table while its page moves to another frame. Linux finds the entries
 * again through the reverse map of the page's mapping (anon_vma, address_space); ours forgets a mapping
 * when it is unmapped, so the places are kept here. Few pages are on their way at a time, so lists are
 * short and searched from the start. Owns no entry: whoever changes page tables says what he did with one
 * (`forked`, `moved`); one that was zapped needs no word, because its place is looked at again.
 */
export class MigrationEntries {
  private readonly frames: number[] = [];
  private readonly mms: number[] = [];
  private readonly pages: number[] = [];

  /** Places that are known, of all frames. */
  get count(): number {
    return this.frames.length;
  }

  /** Process `mm` has a migration entry for `frame` at virtual page `page`: unmapped, or copied by fork. */
  add(frame: number, mm: number, page: number): void {
    this.frames.push(frame);
    this.mms.push(mm);
    this.pages.push(page);
  }

  /** The entry has gone to another page of the same process (mremap). */
  moved(frame: number, mm: number, from: number, to: number): void {
    for (let i = 0; i < this.frames.length; i++) {
      if (this.frames[i] !== frame || this.mms[i] !== mm || this.pages[i] !== from) continue;
      this.pages[i] = to;
      return;
    }
  }

  /** Forgets the places of `frame`, calling `visit` with each, in no particular order. */
  take(frame: number, visit: (mm: number, page: number) => void): void {
    for (let i = this.frames.length - 1; i >= 0; i--) {
      if (this.frames[i] !== frame) continue;
      const [mm, page] = [this.mms[i] as number, this.pages[i] as number];
      const last = this.frames.length - 1;
      this.frames[i] = this.frames[last] as number;
      this.mms[i] = this.mms[last] as number;
      this.pages[i] = this.pages[last] as number;
      this.frames.length = last;
      this.mms.length = last;
      this.pages.length = last;
      visit(mm, page);
    }
  }
}
