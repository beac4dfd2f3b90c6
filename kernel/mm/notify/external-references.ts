/**
 * The ledger of external references: which pages of a process stand in page tables and TLBs outside of
 * its own page table, and which of its ranges are being invalidated. It exists to check the rules of the
 * notifiers, and changes nothing.
 *
 * Every client says when an entry appears in its table and when it is gone. Checked at once (S1: "no new
 * external references may be established", seed 000, patch 1):
 *
 * - no entry appears between the return of begin and the end of an invalidation of its page;
 * - none is left in the range when begin returns, unless a client refused, or postponed it and said so,
 *   or the page is exported, so that its rmap notifiers are asked afterwards;
 * - none appears before its client's registration is visible, or after its unregistration;
 * - no frame is freed that a client still maps (`checkFreed`, called by memory.ts);
 * - an invalidation that has begun ends, once.
 */
import { assert, type Node } from '../../../transport/index.ts';
import { FRAME_EXTERNAL_RMAP, type Frames, PAGE_BYTES } from '../physical/frames.ts';
import { type PageTable, PTE_PRESENT, pteNumber } from '../virtual/page-table.ts';
import { ExternalEntries } from './external-entries.ts';
import { type Invalidation, type InvalidationCause, mayWait } from './invalidation.ts';

/** Somebody with a page table or TLB of its own; only its identity and name matter. */
export interface ExternalClient {
  readonly name: string;
}

/** What the ledger knows of a client that has entries, or had some. */
interface Holder {
  readonly client: ExternalClient;
  readonly number: number;
  /** Entries, the postponed ones included. */
  count: number;
}

/** An entry that outlives the invalidation of its page. */
interface Postponed {
  readonly holder: Holder;
  readonly page: number;
  readonly frame: number;
}

export class ExternalReferences {
  /** Entries made so far. */
  inserted = 0;
  /** Entries that were postponed although their invalidation allows no delay (seed 004: "bad results"). */
  wronglyPostponed = 0;
  /** Invalidations between begin and end. */
  private readonly running: Invalidation[] = [];
  private readonly entries = new ExternalEntries();
  private readonly postponed: Postponed[] = [];
  private readonly holders = new Map<ExternalClient, Holder>();
  private readonly byNumber: (Holder | undefined)[] = [];
  private readonly freeNumbers: number[] = [];
  private last: Holder | undefined;

  constructor(
    private readonly node: Node,
    private readonly frames: Frames,
    /** Why a client must not make references now, if so. */
    private readonly objection: (client: ExternalClient) => string | undefined = () => undefined,
  ) {}

  /** An invalidation has begun: every client has dropped the range, or one has refused. */
  begin(range: Invalidation): void {
    this.running.push(range);
    if (range.refused || this.entries.count === 0) return;
    const end = Math.ceil(range.end / PAGE_BYTES);
    let page = this.entries.nextUsed(Math.floor(range.start / PAGE_BYTES), end);
    for (; page < end; page = this.entries.nextUsed(page + 1, end)) {
      this.checkLeft(page, range.cause);
    }
  }

  /** It has ended. */
  end(range: Invalidation): void {
    const at = this.running.indexOf(range);
    if (at < 0) assert(false, `an invalidation ends that never began (${range.cause})`, this.node);
    const last = this.running.pop() as Invalidation;
    if (last !== range) this.running[at] = last;
  }

  /** True while no invalidation is running. */
  get quiet(): boolean {
    return this.running.length === 0;
  }

  /** Invalidations that have begun and not ended. */
  get unfinished(): readonly Invalidation[] {
    return this.running;
  }

  /** Entries of all clients, those that were postponed included. */
  get count(): number {
    return this.entries.count + this.postponed.length;
  }

  /** The running invalidation that covers virtual page `page`. */
  covering(page: number): Invalidation | undefined {
    if (this.running.length === 0) return undefined;
    const address = page * PAGE_BYTES;
    return this.running.find(
      ({ start, end, refused }) => !refused && start <= address && address < end,
    );
  }

  /** `client` has entered virtual page `page`, in frame `frame`, into its table. */
  insert(client: ExternalClient, page: number, frame: number): void {
    if (this.running.length > 0) this.checkQuiet(client, page);
    const holder = this.last?.client === client ? this.last : this.holderOf(client);
    holder.count++;
    this.entries.add(page, holder.number, frame);
    this.frames.externalEntries[frame]++;
    this.inserted++;
  }

  /**
   * `client` has dropped its entry for virtual page `page`, which named `frame`; it may have several.
   * Whether the device has written the page is to reach the frame before (`frames.markDirty`).
   */
  drop(client: ExternalClient, page: number, frame: number): void {
    const holder = this.last?.client === client ? this.last : this.holders.get(client);
    if (holder === undefined || !this.remove(holder, page, frame)) {
      assert(
        false,
        `${client.name} drops an entry that it does not have at ${hex(page)}`,
        this.node,
      );
    }
    this.frames.externalEntries[frame]--;
    if (--holder.count === 0) this.forget(holder);
  }

  /**
   * `client` keeps its entry for `page` beyond the return of begin, and holds a reference to the frame
   * so that it is not freed meanwhile (seed 004: batched and postponed invalidation). It calls `drop`
   * when the entry is gone. Good for what the memory manager does by itself only, `cause` swap or migrate;
   * others are counted in `wronglyPostponed`.
   */
  postpone(client: ExternalClient, page: number, frame: number, cause: InvalidationCause): void {
    const holder = this.holders.get(client);
    if (holder === undefined || !this.entries.remove(page, holder.number, frame)) {
      assert(false, `${client.name} postpones an entry that it does not have`, this.node);
    }
    this.postponed.push({ holder, page, frame });
    if (!mayWait(cause)) this.wronglyPostponed++;
  }

  /** True when `client` has an entry for `page` that it has not postponed. */
  has(client: ExternalClient, page: number): boolean {
    const holder = this.holders.get(client);
    return holder !== undefined && this.entries.has(page, holder.number);
  }

  /** Entries of `client`. */
  countOf(client: ExternalClient): number {
    return this.holders.get(client)?.count ?? 0;
  }

  /** Calls `visit` for each entry that was not postponed, in order of page. */
  forEach(visit: (client: ExternalClient, page: number, frame: number) => void): void {
    const end = 2 ** 35;
    for (let page = this.entries.nextUsed(0, end); page < end; ) {
      const at = page;
      this.entries.forEachOf(at, (number, frame) => visit(this.clientOf(number), at, frame));
      page = this.entries.nextUsed(at + 1, end);
    }
  }

  /** Asserts that every entry names the frame that the process has at its page; while nothing is going on. */
  checkAgainst(table: PageTable): void {
    this.forEach((client, page, frame) => {
      const pte = table.get(page);
      if ((pte & PTE_PRESENT) !== 0 && pteNumber(pte) === frame) return;
      const what = `${client.name} maps ${hex(page)} to frame ${frame}`;
      assert(false, `${what}, and the process does not`, this.node);
    });
  }

  /** Fails, naming the client, the address and the cause, if `frame` stands in an entry of this process. */
  checkFreed(frame: number): void {
    this.forEach((client, page, mapped) => {
      if (mapped === frame) this.failFreed(client, page, frame);
    });
    for (const entry of this.postponed) {
      if (entry.frame === frame) this.failFreed(entry.holder.client, entry.page, frame);
    }
  }

  /** The rights of clients have changed: look again at who may make entries. */
  reconsider(): void {
    this.last = undefined;
  }

  private remove(holder: Holder, page: number, frame: number): boolean {
    if (this.entries.remove(page, holder.number, frame)) return true;
    const at = this.postponed.findIndex(
      (entry) => entry.holder === holder && entry.page === page && entry.frame === frame,
    );
    if (at >= 0) this.postponed.splice(at, 1);
    return at >= 0;
  }

  private holderOf(client: ExternalClient): Holder {
    const objection = this.objection(client);
    if (objection !== undefined) {
      assert(false, `${client.name} makes an external reference ${objection}`, this.node);
    }
    let holder = this.holders.get(client);
    if (holder === undefined) {
      const number = this.freeNumbers.pop() ?? this.byNumber.length;
      holder = { client, number, count: 0 };
      this.byNumber[number] = holder;
      this.holders.set(client, holder);
    }
    this.last = holder;
    return holder;
  }

  private forget(holder: Holder): void {
    this.holders.delete(holder.client);
    this.byNumber[holder.number] = undefined;
    this.freeNumbers.push(holder.number);
    if (this.last === holder) this.last = undefined;
  }

  private clientOf(number: number): ExternalClient {
    return (this.byNumber[number] as Holder).client;
  }

  private checkQuiet(client: ExternalClient, page: number): void {
    const range = this.covering(page);
    if (range === undefined) return;
    const what = `${client.name} enters page ${hex(page)} while it is being invalidated`;
    assert(false, `${what} (${range.cause})`, this.node);
  }

  private checkLeft(page: number, cause: InvalidationCause): void {
    this.entries.forEachOf(page, (number, frame) => {
      // Of exported pages the rmap notifiers are asked later, before the page is freed.
      const isExported = (this.frames.flags[frame] & FRAME_EXTERNAL_RMAP) !== 0;
      if (isExported && mayWait(cause)) return;
      const what = `${this.clientOf(number).name} still maps ${hex(page)}`;
      assert(false, `${what} when the begin of its invalidation returns (${cause})`, this.node);
    });
  }

  private failFreed(client: ExternalClient, page: number, frame: number): void {
    const why = this.covering(page)?.cause ?? 'outside of any invalidation';
    const what = `page frame ${frame} is freed while ${client.name} maps it at ${hex(page)}`;
    assert(false, `${what} (${why})`, this.node);
  }
}

function hex(page: number): string {
  return `0x${(page * PAGE_BYTES).toString(16)}`;
}
