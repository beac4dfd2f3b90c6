/**
 * The driver's way to the page table that the adapter keeps of one region: TABLE_UPDATE messages.
 */
import {
  BURST,
  BURST_MAX_PAGES,
  BUS_TABLE_UPDATE,
  FRAME_WORDS,
  PAYLOAD_BYTES,
} from '../../transport/index.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import { type Sim, wait } from '../sched/completion.ts';
import type { DeviceTable } from '../umem/device-table.ts';
import type { AdapterBus } from './adapter-bus.ts';
import type { Commands } from './commands.ts';

/** Entries of one TABLE_UPDATE. */
const ENTRIES_PER_UPDATE = 16;

export class RegionTable implements DeviceTable {
  /** The region's key, once the adapter has given it one. */
  mkey = 0;
  private readonly entries = new Int32Array(ENTRIES_PER_UPDATE);
  private firstPage = 0;
  private count = 0;

  constructor(
    private readonly bus: AdapterBus,
    private readonly commands: Commands,
  ) {}

  set(page: number, entry: number): void {
    const isNext = this.count > 0 && page === this.firstPage + this.count;
    if (!isNext || this.count === ENTRIES_PER_UPDATE) this.flush();
    if (this.count === 0) this.firstPage = page;
    this.entries[this.count++] = entry;
  }

  flush(): void {
    if (this.count > 0) this.send(0);
  }

  *flushAndWait(): Sim<void> {
    if (this.count === 0) return;
    const { tag, done } = this.commands.expectDone('the adapter to change its page table');
    this.send(tag);
    yield* wait(done);
  }

  *room(): Sim<void> {
    yield* this.bus.room();
  }

  private send(tag: number): void {
    const { pool } = this.bus;
    const bytes = this.count * PAGE_BYTES;
    const burst = pool.allocateBurst(0, bytes);
    const to = burst * BURST_MAX_PAGES;
    for (let i = 0; i < this.count; i++) pool.burstEntries[to + i] = this.entries[i];
    const frame = this.bus.message(BUS_TABLE_UPDATE);
    const at = frame * FRAME_WORDS;
    pool.words[at + 1] = tag;
    pool.words[at + 2] = this.mkey;
    pool.words[at + 3] = this.firstPage;
    pool.words[at + BURST] = burst;
    pool.words[at + PAYLOAD_BYTES] = bytes;
    this.count = 0;
    this.bus.send(frame);
  }
}
