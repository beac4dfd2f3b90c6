/**
 * Keys of the captured host and ours for the same memory: adapters number them as they like.
 */

/** A key that no adapter of ours gives out: its index is beyond every table. */
const BAD_KEY = 0xfffffff0;

export class Keys {
  private readonly ours = new Map<number, number>();
  private readonly captured = new Map<number, number>();

  /** Says that the captured key and ours mean the same; the last word counts. */
  add(captured: number, ours: number): void {
    this.ours.set(captured, ours);
    this.captured.set(ours, captured);
  }

  /** Our key for a captured one; one that is certainly bad where the set-up does not have it. */
  toOurs(captured: number): number {
    return this.ours.get(captured) ?? BAD_KEY;
  }

  /** The captured key for ours; ours itself where there is none. */
  toCaptured(ours: number): number {
    return this.captured.get(ours) ?? ours;
  }
}
