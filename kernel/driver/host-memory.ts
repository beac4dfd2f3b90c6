/**
 * The memory of a host as its adapter sees it: DMA reads, writes and atomics of page frames.
 *
 * This is the data plane: no stream, no thread, nothing allocated. A read takes a reference to each
 * page's block, so it samples memory at the moment it gets here for the price of a count. A write
 * copies the payload into the frame: the one copy of a payload on its way from memory to memory.
 *
 * There is no IOMMU. An adapter with a stale table reaches whatever the frame is now; that is counted
 * where it can be told (the frame is free), and happens all the same.
 */
import {
  ATOMIC_ADD,
  assert,
  BLOCK_BYTES,
  BURST,
  BURST_MAX_PAGES,
  BURST_OFFSET,
  BUS_DMA_ATOMIC_DATA,
  BUS_DMA_READ_DATA,
  DMA_ENDS_MESSAGE,
  DMA_SCATTERED,
  FRAME_WORDS,
  type FramePool,
  type Node,
  PAYLOAD_BYTES,
  type TimePs,
} from '../../transport/index.ts';
import type { Frames } from '../mm/physical/frames.ts';
import type { ReverseMap } from '../mm/virtual/reverse-map.ts';
import type { AdapterBus } from './adapter-bus.ts';
import type { MessageLog } from './message-log.ts';

/** What DMA did, as a host counts it. */
export interface DmaCounters {
  dma_reads: number;
  dma_read_bytes: number;
  dma_writes: number;
  dma_write_bytes: number;
  dma_atomics: number;
  /** Transfers with a frame that nothing maps or pins any more; an atomic counts as a write. */
  stale_dma_reads: number;
  stale_dma_writes: number;
}

export class HostMemory {
  readonly counters: DmaCounters = {
    dma_reads: 0,
    dma_read_bytes: 0,
    dma_writes: 0,
    dma_write_bytes: 0,
    dma_atomics: 0,
    stale_dma_reads: 0,
    stale_dma_writes: 0,
  };
  private readonly node: Node;
  private readonly pool: FramePool;

  constructor(
    private readonly bus: AdapterBus,
    private readonly frames: Frames,
    private readonly rmap: ReverseMap,
    private readonly log: MessageLog,
    private readonly dmaReadPs: TimePs,
  ) {
    this.node = bus.node;
    this.pool = bus.pool;
  }

  /** Answers a DMA_READ; the frame goes back as its DMA_READ_DATA. */
  read(frame: number): void {
    const { pool, frames, counters } = this;
    const { words } = pool;
    const at = frame * FRAME_WORDS;
    const burst = words[at + BURST];
    const bytes = burst === 0 ? 0 : pool.burstBytes[burst];
    counters.dma_reads++;
    counters.dma_read_bytes += bytes;
    if (burst !== 0) {
      const pages = pool.burstPages(burst);
      const end = burst * BURST_MAX_PAGES + pages;
      for (let i = end - pages; i < end; i++) {
        const page = pool.burstEntries[i];
        this.check(page);
        if (frames.references[page] === 0) counters.stale_dma_reads++;
        pool.burstEntries[i] = frames.content.sample(page);
      }
      pool.markLoaded(burst);
    }
    if (words[at + 2] & DMA_ENDS_MESSAGE) {
      const [qpn, message, length] = [words[at + 3], words[at + 4], words[at + 5] >>> 0];
      this.log.addRead(qpn, message, pool.doubles[frame * 2], length);
    }

    // Tag (word 1) and burst stay; the rest of the request goes.
    words[at] = BUS_DMA_READ_DATA;
    for (let i = 2; i < PAYLOAD_BYTES; i++) words[at + i] = 0;
    words[at + PAYLOAD_BYTES] = bytes;
    words[at + BURST_OFFSET] = 0;
    pool.doubles[frame * 2] = 0;
    pool.doubles[frame * 2 + 1] = 0;
    this.bus.send(frame, this.dmaReadPs);
  }

  /** Lands a DMA_WRITE; the frame stays the caller's. */
  write(frame: number): void {
    const { pool, counters } = this;
    const { words } = pool;
    const at = frame * FRAME_WORDS;
    const bytes = words[at + PAYLOAD_BYTES];
    counters.dma_writes++;
    counters.dma_write_bytes += bytes;
    if (bytes > 0) {
      const within = words[at + 2];
      const first = Math.min(bytes, BLOCK_BYTES - within);
      assert(bytes - first <= BLOCK_BYTES, 'a DMA write touches two pages', this.node);
      this.land(words[at + 1], within, frame, 0, first);
      if (bytes > first) this.land(words[at + 3], 0, frame, first, bytes - first);
    }
    const flags = words[at + 4];
    if (flags & DMA_ENDS_MESSAGE) {
      const [qpn, message, length] = [words[at + 5], words[at + 6], words[at + 7] >>> 0];
      const place = pool.doubles[frame * 2];
      if (flags & DMA_SCATTERED) this.log.addScattered(qpn, message, place, length);
      else this.log.addWritten(qpn, message, place, length);
    }
  }

  /**
   * Executes a DMA_ATOMIC on 8 bytes of memory, little endian, at this very moment; the frame goes
   * back as its DMA_ATOMIC_DATA.
   */
  atomic(frame: number): void {
    const { pool, frames, counters } = this;
    const { words } = pool;
    const at = frame * FRAME_WORDS;
    const page = words[at + 2];
    const offset = words[at + 3];
    const operation = words[at + 4];
    const [dataHigh, dataLow] = [words[at + 5], words[at + 6]];
    const [compareHigh, compareLow] = [words[at + 7], words[at + 8]];
    this.check(page);
    assert(
      (offset & 7) === 0 && offset >= 0 && offset < BLOCK_BYTES,
      'an atomic is not on a multiple of 8',
      this.node,
    );
    counters.dma_atomics++;
    if (frames.references[page] === 0) counters.stale_dma_writes++;
    const low = (frames.content.write(page, false) * BLOCK_BYTES + offset) >>> 2;
    const memory = frames.content.blocks.words;
    const [oldHigh, oldLow] = [memory[low + 1], memory[low]];
    if (operation === ATOMIC_ADD) {
      const sum = (oldLow >>> 0) + (dataLow >>> 0);
      memory[low] = sum;
      memory[low + 1] = oldHigh + dataHigh + (sum >= 2 ** 32 ? 1 : 0);
    } else if (oldHigh === compareHigh && oldLow === compareLow) {
      memory[low] = dataLow;
      memory[low + 1] = dataHigh;
    }
    const address = this.rmap.pageOf(page) * BLOCK_BYTES + offset;
    const operands = [dataHigh, dataLow, compareHigh, compareLow];
    this.log.addAtomic(address, operation, [...operands, oldHigh, oldLow]);

    // The tag (word 1) stays.
    words[at] = BUS_DMA_ATOMIC_DATA;
    words[at + 2] = oldHigh;
    words[at + 3] = oldLow;
    for (let i = 4; i < PAYLOAD_BYTES; i++) words[at + i] = 0;
    this.bus.send(frame, this.dmaReadPs);
  }

  /** Writes payload bytes [from, from + bytes) of a frame into page frame `page` at `within`. */
  private land(page: number, within: number, frame: number, from: number, bytes: number): void {
    const { pool, frames } = this;
    const at = frame * FRAME_WORDS;
    this.check(page);
    if (frames.references[page] === 0) this.counters.stale_dma_writes++;
    const block = frames.content.write(page, bytes === BLOCK_BYTES);
    const offset = pool.words[at + BURST_OFFSET] + from;
    pool.copyToBlock(pool.words[at + BURST], offset, bytes, block, within);
  }

  private check(page: number): void {
    assert(
      page >= 0 && page < this.frames.count,
      'DMA to a page frame that does not exist',
      this.node,
    );
  }
}
