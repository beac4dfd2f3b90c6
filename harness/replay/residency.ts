/**
 * The oracle of a replay: whether a rank ended with the mappings and pages that the recorded process
 * had, and why each page is there, or not, that should be the other way round.
 *
 * Recordings are exact about anonymous memory but for what they did not see (`gaps.ts`), so every
 * anonymous page must be accounted for. File pages they undercount: a kernel maps up to 16 pages around
 * one fault, and which ones depends on its page cache. Those are counted apart.
 */
import type { AddressSpace } from '../../kernel/index.ts';
import type { ResidentRun, Trace, TraceMapping } from '../trace/format.ts';
import { PAGE_BYTES } from '../workload/layout.ts';
import type { Gaps } from './gaps.ts';

/** What made a page present (kernel/mm/physical/frames.ts), as causes of extra pages. */
const originCauses: readonly (Cause | undefined)[] = [
  undefined, // the program
  undefined, // it was there at the start
  'populate',
  'registration',
  'device_fault',
  'prefetch',
  'lock',
  'fault_around',
];

/** Pages that fault-around maps at a time, aligned (fault_around_bytes, 64 KiB). */
const AROUND_PAGES = 16;

/** Why a page is extra or missing. */
export type Cause =
  /** Missing: a helper thread touched it, whose faults are not recorded. */
  | 'helper_thread'
  /** Missing: it belongs to the recorder, whose faults are filtered out. */
  | 'recorder'
  /** Extra: registering a buffer faulted it in. */
  | 'registration'
  /** Extra: a page fault of the adapter brought it in. */
  | 'device_fault'
  | 'prefetch'
  | 'populate'
  | 'lock'
  /** File pages that one kernel mapped around a fault and the other did not. */
  | 'fault_around'
  /** Missing file pages near which the recording has no fault at all: it undercounts those of files. */
  | 'unrecorded_fault'
  /** Extra file pages that the recorded program did fault in, and whose page its kernel took back. */
  | 'recorded_fault';

/** How the pages of a rank compare with the recording. Counts are pages. */
export interface Residency {
  readonly recorded: number;
  readonly replayed: number;
  readonly extra: number;
  readonly missing: number;
  /** Of both, those that no cause explains. */
  readonly unattributed: number;
  readonly by_cause: Readonly<Partial<Record<Cause, number>>>;
}

/** The pages that a process has present. */
export interface PresentPages {
  /** Virtual page -> what made it present. */
  readonly anonymous: ReadonlyMap<number, number>;
  readonly file: ReadonlyMap<number, number>;
}

/** The pages that `mm` has present now. */
export function presentPages(mm: AddressSpace): PresentPages {
  const anonymous = new Map<number, number>();
  const file = new Map<number, number>();
  const { frames } = mm.memory;
  for (const { start, end } of mm.mappings()) {
    mm.state.table.forEachUsed(start / PAGE_BYTES, end / PAGE_BYTES, (page) => {
      const frame = mm.pages.followPage(page, false);
      if (frame < 0) return;
      (frames.files[frame] === 0 ? anonymous : file).set(page, frames.origins[frame]);
    });
  }
  return { anonymous, file };
}

/** The pages of a recording's list. */
export function recordedPages(runs: readonly ResidentRun[], anonymous: boolean): Set<number> {
  const pages = new Set<number>();
  for (const run of runs) {
    if (run.anonymous !== anonymous) continue;
    const first = run.address / PAGE_BYTES;
    for (let page = first; page < first + run.pageCount; page++) pages.add(page);
  }
  return pages;
}

/** The windows of fault-around that a recording has a page or a fault in. */
export function touchedWindows({ resident, events }: Trace): Set<number> {
  const windows = new Set<number>();
  const add = (address: number, pageCount: number): void => {
    const first = Math.floor(address / PAGE_BYTES);
    const last = windowOf(first + pageCount - 1);
    for (let window = windowOf(first); window <= last; window++) windows.add(window);
  };
  for (const { address, pageCount } of resident) add(address, pageCount);
  for (const event of events) if (event.kind === 'pf') add(event.address, event.pageCount);
  return windows;
}

/** Whether mapped ranges and their protections are the recorded ones. */
export function mapsEqual(mm: AddressSpace, recorded: readonly TraceMapping[]): boolean {
  const ours = outline(mm.mappings());
  const theirs = outline(recorded);
  return ours.length === theirs.length && ours.every((value, i) => value === theirs[i]);
}

/**
 * Accounts for the anonymous pages of a rank. `baseline` are those that the same replay has without
 * messages: what is extra or missing there, messages cannot explain.
 */
export function accountAnonymous(
  recorded: ReadonlySet<number>,
  replayed: ReadonlyMap<number, number>,
  gaps: Pick<Gaps, 'causeOf'>,
  baseline?: ReadonlyMap<number, number>,
): Residency {
  const account = new Account(recorded.size, replayed.size);
  for (const [page, origin] of replayed) {
    if (recorded.has(page)) continue;
    account.extra(baseline?.has(page) ? undefined : originCauses[origin]);
  }
  for (const page of recorded) {
    if (replayed.has(page)) continue;
    account.missing(baseline?.has(page) ? undefined : gaps.causeOf(page));
  }
  return account.result();
}

/** The same for pages of files; `touched` are the windows that the recording has a fault in. */
export function accountFiles(
  recorded: ReadonlySet<number>,
  { anonymous, file }: PresentPages,
  touched: ReadonlySet<number>,
): Residency {
  const account = new Account(recorded.size, file.size);
  const isNear = (page: number): boolean => {
    const first = page - (page % AROUND_PAGES);
    for (let near = first; near < first + AROUND_PAGES; near++) {
      if (file.has(near) || anonymous.has(near)) return true;
    }
    return false;
  };
  for (const [page, origin] of file) {
    if (recorded.has(page)) continue;
    const wasTouched = touched.has(windowOf(page));
    account.extra(originCauses[origin] ?? (wasTouched ? 'recorded_fault' : undefined));
  }
  for (const page of recorded) {
    if (file.has(page)) continue;
    if (isNear(page)) account.missing('fault_around');
    else account.missing(touched.has(windowOf(page)) ? undefined : 'unrecorded_fault');
  }
  return account.result();
}

function windowOf(page: number): number {
  return Math.floor(page / AROUND_PAGES);
}

class Account {
  private extraPages = 0;
  private missingPages = 0;
  private unattributed = 0;
  private readonly causes: Partial<Record<Cause, number>> = {};

  constructor(
    private readonly recorded: number,
    private readonly replayed: number,
  ) {}

  extra(cause: Cause | undefined): void {
    this.extraPages++;
    this.count(cause);
  }

  missing(cause: Cause | undefined): void {
    this.missingPages++;
    this.count(cause);
  }

  result(): Residency {
    return {
      recorded: this.recorded,
      replayed: this.replayed,
      extra: this.extraPages,
      missing: this.missingPages,
      unattributed: this.unattributed,
      by_cause: this.causes,
    };
  }

  private count(cause: Cause | undefined): void {
    if (cause === undefined) this.unattributed++;
    else this.causes[cause] = (this.causes[cause] ?? 0) + 1;
  }
}

/** Start, end and protection of each range, neighbours of one protection as one. */
function outline(
  mappings: readonly { readonly start: number; readonly end: number; readonly prot: number }[],
): number[] {
  const numbers: number[] = [];
  for (const { start, end, prot } of mappings) {
    const last = numbers.length - 3;
    if (last >= 0 && numbers[last + 1] === start && numbers[last + 2] === prot) {
      numbers[last + 1] = end;
    } else numbers.push(start, end, prot);
  }
  return numbers;
}
