/**
 * The ledger of external references: which pages of a process stand in page tables and TLBs outside of
 * its own page table. It exists to check the rules of the notifiers, and changes nothing.
 *
 * Every client says when an entry appears in its table and when it is gone. Two rules are checked at
 * once: no entry appears between the begin and the end of an invalidation of its page (S1: "no new
 * external references may be established"), and no frame is freed that a client still maps.
 */
import { assert, type Node } from '../../../transport/index.ts';
import { type Frames, PAGE_BYTES } from '../physical/frames.ts';
import type { Invalidation } from './invalidation.ts';

/** Somebody with a page table or TLB of its own; only its identity and name matter. */
export interface ExternalClient {
  readonly name: string;
}

export class ExternalReferences {
  /** Invalidations between begin and end. */
  private readonly running: Invalidation[] = [];

  constructor(
    private readonly node: Node,
    private readonly frames: Frames,
  ) {}

  /** An invalidation has begun: every client has dropped the range when its callbacks have returned. */
  begin(invalidation: Invalidation): void {
    this.running.push(invalidation);
  }

  /** It has ended. */
  end(invalidation: Invalidation): void {
    const at = this.running.indexOf(invalidation);
    assert(at >= 0, 'an invalidation ends that never began', this.node);
    this.running.splice(at, 1);
  }

  /** True while no invalidation is running. */
  get quiet(): boolean {
    return this.running.length === 0;
  }

  /** The running invalidation that covers virtual page `page`. */
  covering(page: number): Invalidation | undefined {
    if (this.running.length === 0) return undefined;
    const address = page * PAGE_BYTES;
    return this.running.find(({ start, end }) => start <= address && address < end);
  }

  /** `client` has entered virtual page `page`, in frame `frame`, into its table. */
  insert(client: ExternalClient, page: number, frame: number): void {
    const running = this.covering(page);
    if (running !== undefined) {
      const at = (page * PAGE_BYTES).toString(16);
      assert(
        false,
        `${client.name} enters page 0x${at} while it is being invalidated (${running.cause})`,
        this.node,
      );
    }
    this.frames.externalEntries[frame]++;
  }

  /** `client` has dropped its entry for frame `frame`. */
  drop(client: ExternalClient, frame: number): void {
    if (--this.frames.externalEntries[frame] >= 0) return;
    assert(false, `${client.name} drops an entry that it does not have`, this.node);
  }
}
