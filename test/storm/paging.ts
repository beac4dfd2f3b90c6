/**
 * The memory management of one host in a storm: pages of a region come, go and move while the
 * adapter works, always in the order a kernel keeps: the adapter's entry is cleared and the answer
 * awaited before a frame is given to somebody else.
 *
 * A frame that nobody owns is scribbled, so a use of an older mapping shows: a read brings scribble,
 * a write spoils it or the page that came after.
 */
import {
  ACCESS_READ,
  ACCESS_WRITE,
  BUS_PD_RESUME,
  BUS_PD_SUSPEND,
  CMD_DESTROY_MKEY,
  type FramePool,
  RandomStream,
  US,
} from '../../transport/index.ts';
import type { BareFault, BareHost } from '../fixtures/bare-host.ts';
import { type Disturbance, FIRST_PAGE, PAGE } from './adapter-plan.ts';

const ABSENT = 0;
const READ_ONLY = 1;
const WRITABLE = 2;
/** The adapter was told to forget it and has not answered, or stands still and must not use it. */
const BUSY = 3;

const SCRIBBLE = new Uint8Array(PAGE).fill(0xee);

/** A region of on-demand pages: pages [first, first + count) of the host, counted from FIRST_PAGE. */
export interface PagedRegion {
  readonly mkey: number;
  readonly pd: number;
  readonly first: number;
  readonly count: number;
  isAlive: boolean;
  isSuspended: boolean;
  /** Its bytes when the adapter had given it up. */
  frozen: Uint8Array | undefined;
}

export class Paging {
  /** Faults that were refused, and regions that went while a fault was out. */
  refused = 0;
  private readonly state: Uint8Array;
  private readonly frameOf: Int32Array;
  private readonly free: number[] = [];
  private readonly chance: RandomStream;
  private readonly onDone = new Map<number, () => void>();

  /** `pages` pages from FIRST_PAGE on stand in frames of the same number; `spares` are free. */
  constructor(
    private readonly host: BareHost,
    private readonly pool: FramePool,
    private readonly regions: readonly PagedRegion[],
    private readonly pages: number,
    spares: readonly number[],
    private readonly refusePpm: number,
    seed: number,
  ) {
    this.chance = new RandomStream(seed, host.node.name, 'paging');
    this.state = new Uint8Array(pages);
    this.frameOf = Int32Array.from({ length: pages }, (_, i) => FIRST_PAGE + i);
    for (const frame of spares) this.abandon(frame);
    host.onFault = (fault) => this.later(() => this.serve(fault));
    host.onDone = (tag) => {
      this.onDone.get(tag)?.();
      this.onDone.delete(tag);
    };
  }

  /** Maps pages at the start, `permille` of them. */
  populate(permille: number): void {
    for (const region of this.regions) {
      for (let page = region.first; page < region.first + region.count; page++) {
        if (this.chance.below(1000) < permille) this.map(region, page, true);
      }
    }
  }

  disturb({ kind, page, count, pd, spanPs }: Disturbance): void {
    const region = this.regions.find((r) =>
      pd === 0 ? page >= r.first && page < r.first + r.count : r.pd === pd,
    );
    if (region === undefined || !region.isAlive) return;
    const end = Math.min(page + count, region.first + region.count);
    if (kind === 'invalidate') this.clear(region, page, end);
    else if (kind === 'protect') this.protect(region, page, end);
    else if (kind === 'prefetch') {
      for (let p = page; p < end; p++) if (this.state[p] === ABSENT) this.map(region, p, true);
    } else if (kind === 'suspend') this.suspend(region, spanPs);
    else this.destroy(region);
  }

  /** The host's memory as a program would see it. */
  memory(): Uint8Array {
    return this.bytesOf(0, this.pages);
  }

  /** Frames without an owner that are not as they were left. */
  spoilt(): number[] {
    return this.free.filter((frame) => !this.isScribbled(frame));
  }

  private bytesOf(first: number, count: number): Uint8Array {
    const out = new Uint8Array(count * PAGE);
    for (let i = 0; i < count; i++) {
      const block = this.host.blocks[this.frameOf[first + i]] * PAGE;
      out.set(this.pool.blocks.bytes.subarray(block, block + PAGE), i * PAGE);
    }
    return out;
  }

  /** What a driver does about a page fault, after a while. */
  private serve(fault: BareFault): void {
    const region = this.regions.find((r) => r.mkey === fault.mkey);
    if (!region?.isAlive || this.chance.chance(this.refusePpm)) {
      this.refused++;
      this.host.resumeFault(fault.token, 1);
      return;
    }
    const page = (address: number): number => Math.floor(address / PAGE) - FIRST_PAGE;
    const first = page(fault.address);
    const last = page(fault.address + Math.max(fault.bytes, 1) - 1);
    const needsWrite = (fault.access & ACCESS_WRITE) !== 0;
    let isRaced = false;
    for (let p = first; p <= last; p++) {
      if (this.state[p] === BUSY) isRaced = true;
      else if (this.state[p] === ABSENT) {
        this.map(region, p, needsWrite || this.chance.below(3) > 0);
      } else if (this.state[p] === READ_ONLY && needsWrite) this.map(region, p, true);
    }
    // A page on its way out: wait for it, or let the adapter find out and fault again.
    if (isRaced && this.chance.below(2) === 0) this.later(() => this.serve(fault));
    else this.host.resumeFault(fault.token);
  }

  private map(region: PagedRegion, page: number, isWritable: boolean): void {
    this.state[page] = isWritable ? WRITABLE : READ_ONLY;
    this.host.table(region.mkey, page - region.first, 1, () => this.entry(page));
  }

  private entry(page: number): number {
    return (
      (this.frameOf[page] << 2) | (this.state[page] === WRITABLE ? ACCESS_WRITE : 0) | ACCESS_READ
    );
  }

  /** Takes the mapped pages of a stretch away, all at once; most of them move. */
  private clear(region: PagedRegion, first: number, end: number): void {
    this.takeAway(region, first, end, (page) => {
      this.state[page] = ABSENT;
      if (this.chance.below(10) < 7) this.move(page);
    });
  }

  /** Makes the mapped pages of a stretch read-only, by way of not being there. */
  private protect(region: PagedRegion, first: number, end: number): void {
    this.takeAway(region, first, end, (page) => this.map(region, page, false));
  }

  private takeAway(
    region: PagedRegion,
    first: number,
    end: number,
    then: (page: number) => void,
  ): void {
    const isMapped = (page: number): boolean =>
      page < end && (this.state[page] === READ_ONLY || this.state[page] === WRITABLE);
    let from = first;
    while (from < end) {
      let to = from;
      while (isMapped(to)) this.state[to++] = BUSY;
      if (to > from) {
        const run = Array.from({ length: to - from }, (_, i) => from + i);
        const tag = this.host.table(region.mkey, from - region.first, to - from, () => 0);
        this.onDone.set(tag, () => {
          for (const page of run) if (region.isAlive) then(page);
        });
      }
      from = to + 1;
    }
  }

  /** Stands a domain still; its pages move without being cleared first. */
  private suspend(region: PagedRegion, spanPs: number): void {
    if (region.isSuspended) return;
    region.isSuspended = true;
    const tag = this.host.protectionDomain(BUS_PD_SUSPEND, region.pd);
    this.onDone.set(tag, () => {
      const moved = this.moveSome(region);
      this.host.at(this.host.node.now + spanPs, () => {
        // Only now does the adapter hear of the new frames.
        for (const { page, state } of moved) this.map(region, page, state === WRITABLE);
        region.isSuspended = false;
        this.host.protectionDomain(BUS_PD_RESUME, region.pd);
      });
    });
  }

  /** Moves some mapped pages without clearing them: for a domain that stands still. */
  private moveSome(region: PagedRegion): { page: number; state: number }[] {
    const moved: { page: number; state: number }[] = [];
    for (let page = region.first; page < region.first + region.count; page++) {
      const state = this.state[page];
      if (state === ABSENT || state === BUSY || this.chance.below(8) > 0) continue;
      this.state[page] = BUSY;
      this.move(page);
      moved.push({ page, state });
    }
    return moved;
  }

  private destroy(region: PagedRegion): void {
    region.isAlive = false;
    const tag = this.host.command(CMD_DESTROY_MKEY, [region.mkey]);
    this.onDone.set(tag, () => {
      region.frozen = this.bytesOf(region.first, region.count);
    });
  }

  /** The page goes to another frame; nothing uses the old one any more. */
  private move(page: number): void {
    const index = this.chance.below(this.free.length);
    const frame = this.free[index] as number;
    this.free.splice(index, 1);
    if (!this.isScribbled(frame)) throw new Error(`frame ${frame} was written while it was free`);
    const old = this.frameOf[page] as number;
    this.write(frame, this.bytesOf(page, 1));
    this.frameOf[page] = frame;
    this.abandon(old);
  }

  private abandon(frame: number): void {
    this.write(frame, SCRIBBLE);
    this.free.push(frame);
  }

  private isScribbled(frame: number): boolean {
    const block = this.host.blocks[frame] * PAGE;
    return Buffer.compare(SCRIBBLE, this.pool.blocks.bytes.subarray(block, block + PAGE)) === 0;
  }

  /** Writes a whole frame, as a program or a kernel would. */
  write(frame: number, bytes: Uint8Array): void {
    const burst = this.pool.burstFromBytes(bytes, 0, PAGE);
    this.host.land(burst, 0, PAGE, frame, 0);
    this.pool.releaseBurst(burst);
  }

  private later(run: () => void): void {
    const spans = [1, 20, 200, 1000];
    const span = (spans[this.chance.below(spans.length)] as number) * US;
    this.host.at(this.host.node.now + 1 + this.chance.below(span), run);
  }
}
