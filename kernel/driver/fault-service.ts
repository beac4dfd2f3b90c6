/**
 * Serves the page faults of the adapter (drivers/infiniband/hw/mlx5/odp.c, mlx5_ib_pfault).
 *
 * A stream of events, a bounded number of workers, each event a simulated thread: bring the pages in,
 * enter them into the adapter's table, resume. Faults of one region that overlap are served in the
 * order in which they came; others as workers are free.
 *
 * A fault that only lost races with invalidations is resumed as good: the adapter looks again and, if
 * it must, faults again. A fault that cannot be served (nothing mapped there, no permission, no such
 * region) is resumed with an error and fails its queue pair.
 */
import { mergeMap } from 'rxjs';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_WRITE,
  BUS_FAULT_RESUME,
  FRAME_WORDS,
  RECORD_FAULT,
} from '../../transport/index.ts';
import { VerbsError } from '../errno.ts';
import type { Memory } from '../mm/memory.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import { subscribeOrFail } from '../rx/subscribe.ts';
import { threadStream } from '../rx/thread-stream.ts';
import { Completion, type Sim } from '../sched/completion.ts';
import { MAP_EAGAIN, MAP_EFAULT } from '../umem/odp.ts';
import type { AdapterBus } from './adapter-bus.ts';
import type { BusEvents, PageFaultEvent } from './events.ts';
import type { MemoryRegion } from './memory-region.ts';
import type { RegionBook } from './region-book.ts';

/** Status of FAULT_RESUME. */
const RESUME_OK = 0;
const RESUME_ERROR = 1;

/** A fault between its event and its resume. */
interface ActiveFault {
  readonly event: PageFaultEvent;
  readonly served: Completion<void>;
}

export class FaultService {
  /** Faults resumed with an error. */
  failed = 0;
  /** Faults resumed as good although invalidations kept the pages out. */
  raced = 0;
  private readonly active: ActiveFault[] = [];

  constructor(
    private readonly bus: AdapterBus,
    events: BusEvents,
    private readonly regions: RegionBook,
    private readonly memory: Memory,
    workers: number,
  ) {
    const { scheduler } = memory;
    const served$ = events.pageFaults$.pipe(
      mergeMap((event) => threadStream(scheduler, 'page fault', () => this.serve(event)), workers),
    );
    subscribeOrFail(bus.node, served$, () => {});
  }

  private *serve(event: PageFaultEvent): Sim<void> {
    const fault = { event, served: new Completion<void>('an overlapping page fault') };
    const earlier = this.active.filter((other) => overlap(other.event, event));
    this.active.push(fault);
    for (const other of earlier) yield other.served;

    yield this.memory.costs.faultPs;
    const region = this.regions.find(event.mkey);
    const status = region === undefined ? RESUME_ERROR : yield* this.bringIn(region, event);
    if (status === RESUME_ERROR) this.failed++;
    this.resume(event.token, status);
    this.active.splice(this.active.indexOf(fault), 1);
    fault.served.resolve();
  }

  private *bringIn(region: MemoryRegion, event: PageFaultEvent): Sim<number> {
    const { odp } = region;
    const write = (event.access & ACCESS_WRITE) !== 0;
    const end = event.address + Math.max(1, event.length);
    const inside = event.address >= region.address && end <= region.address + region.length;
    if (odp === undefined || !inside) return RESUME_ERROR;
    if (write && (region.access & ACCESS_LOCAL_WRITE) === 0) return RESUME_ERROR;

    region.hold();
    const firstPage = Math.floor(event.address / PAGE_BYTES);
    const request = {
      first: firstPage - odp.firstPage,
      count: Math.ceil(end / PAGE_BYTES) - firstPage,
      write,
      fault: true,
      readOnly: false,
      synchronous: false,
    };
    let pages = MAP_EFAULT;
    try {
      pages = yield* odp.map(request);
    } catch (error) {
      // A region of the whole address space finds no key for a further part of itself.
      if (!(error instanceof VerbsError)) throw error;
    }
    if (pages >= 0) {
      region.counters.page_faults += pages;
      region.counters.page_faults_handled++;
    } else if (pages === MAP_EAGAIN) this.raced++;
    const { node } = this.bus;
    region.faultLatenciesPs.push(node.now - event.arrivedPs);
    node.digest.record(RECORD_FAULT, node.now, region.mrn, event.token, event.access, pages);
    region.put();
    return pages >= 0 || pages === MAP_EAGAIN ? RESUME_OK : RESUME_ERROR;
  }

  private resume(token: number, status: number): void {
    const frame = this.bus.message(BUS_FAULT_RESUME);
    const at = frame * FRAME_WORDS;
    this.bus.pool.words[at + 1] = token;
    this.bus.pool.words[at + 2] = status;
    this.bus.send(frame);
  }
}

/** True when two faults are of one region and share a page. */
function overlap(a: PageFaultEvent, b: PageFaultEvent): boolean {
  const page = (address: number): number => Math.floor(address / PAGE_BYTES);
  return (
    a.mkey === b.mkey &&
    page(a.address) <= page(b.address + Math.max(1, b.length) - 1) &&
    page(b.address) <= page(a.address + Math.max(1, a.length) - 1)
  );
}
