/**
 * The lines of a recorded rank's event file, one by one: what each kind has for columns (docs/REPLAY.md).
 *
 * Owns what is kept of them; the place of an error is `columns.ts`'s.
 */
import type { Columns } from './columns.ts';
import type { ResidentRun, TraceEvent } from './format.ts';
import { protectionOf } from './maps.ts';

/** What stands in the flags column of mmap, as MAP_* bits; F, that is MAP_FIXED, is how all replay. */
const mapFlags: Readonly<Record<string, number>> = {
  p: 0,
  s: 0x1,
  F: 0,
  K: 0x20000,
  L: 0x2000,
  N: 0x4000,
  P: 0x8000,
  H: 0x40000,
};

/** Advice of madvise by name (include/uapi/asm-generic/mman-common.h). */
const adviceNumbers: Readonly<Record<string, number>> = {
  MADV_NORMAL: 0,
  MADV_RANDOM: 1,
  MADV_SEQUENTIAL: 2,
  MADV_WILLNEED: 3,
  MADV_DONTNEED: 4,
  MADV_FREE: 8,
  MADV_REMOVE: 9,
  MADV_DONTFORK: 10,
  MADV_DOFORK: 11,
  MADV_HUGEPAGE: 14,
  MADV_NOHUGEPAGE: 15,
};

/** Kinds of line that say nothing a replay needs. */
const skipped: ReadonlySet<string> = new Set([
  'cs',
  'cr',
  'init',
  'sync',
  'win',
  'winfree',
  'amem',
  'fmem',
]);

/** Takes the lines of one rank in order. */
export class EventReader {
  readonly events: TraceEvent[] = [];
  readonly resident: ResidentRun[] = [];
  rssPeakBytes = 0;
  isFinished = false;
  /** Sends so far: a message is known by its number among them. */
  private sends = 0;

  constructor(private readonly lines: Columns) {}

  readAll(): void {
    const { lines } = this;
    let gapNs = 0;
    while (lines.next()) {
      gapNs += lines.integer();
      const kind = lines.text();
      if (skipped.has(kind)) continue;
      const event = this.take(kind, gapNs);
      if (event === undefined) continue;
      lines.end();
      this.events.push(event);
      gapNs = 0;
    }
  }

  private take(kind: string, gapNs: number): TraceEvent | undefined {
    const { lines } = this;
    const { line } = lines;
    switch (kind) {
      case 'res':
        this.resident.push(this.residentRun());
        return undefined;
      case 'mmap':
        return this.mmap(line, gapNs);
      case 'munmap': {
        const [address, length] = [lines.address(), lines.integer()];
        return { line, gapNs, kind, address, length, isHelper: this.isHelper() };
      }
      case 'mprotect': {
        const [address, length, prot] = [lines.address(), lines.integer(), this.protection()];
        return { line, gapNs, kind, address, length, prot, isHelper: this.isHelper() };
      }
      case 'mremap': {
        const [address, length] = [lines.address(), lines.integer()];
        const [newAddress, newLength] = [lines.address(), lines.integer()];
        lines.skip();
        return { line, gapNs, kind, address, length, newAddress, newLength };
      }
      case 'brk': {
        const end = lines.address();
        lines.signed();
        return { line, gapNs, kind, end };
      }
      case 'madvise': {
        const [address, length] = [lines.address(), lines.integer()];
        return { line, gapNs, kind, address, length, advice: this.advice() };
      }
      case 'shmat':
        return this.attach(line, gapNs);
      case 'shmdt': {
        const [address, length] = [lines.address(), lines.integer()];
        lines.rest();
        return { line, gapNs, kind: 'munmap', address, length, isHelper: false };
      }
      case 'clone':
        this.clone();
        return undefined;
      case 'pf':
        return this.pageFault(line, gapNs);
      case 'tx':
      case 'ptx':
        return this.send(line, gapNs, kind);
      case 'rx':
      case 'prx':
        return this.receive(line, gapNs, kind);
      case 'done':
      case 'call': {
        const id = lines.integer();
        lines.rest();
        return { line, gapNs, kind, id };
      }
      case 'ret':
        return { line, gapNs, kind, id: lines.integer() };
      case 'rma':
        lines.rest();
        return { line, gapNs, kind };
      case 'rss':
        this.rssPeakBytes = Math.max(this.rssPeakBytes, lines.integer());
        return undefined;
      case 'finalize':
        this.isFinished = true;
        return undefined;
      default:
        throw lines.bad(`'${kind}' is not a kind of event`, 'a kind of docs/REPLAY.md');
    }
  }

  private mmap(line: number, gapNs: number): TraceEvent {
    const { lines } = this;
    const [address, length, prot] = [lines.address(), lines.integer(), this.protection()];
    let flags = 0;
    for (const letter of lines.text()) {
      const bits = Object.hasOwn(mapFlags, letter) ? mapFlags[letter] : undefined;
      if (bits === undefined)
        throw lines.bad(`'${letter}' is not a flag of mmap`, 'p s F N P K L H');
      flags |= bits;
    }
    const backing = lines.text();
    const at = backing.lastIndexOf('@');
    const fileOffset = at < 0 ? 0 : Number(backing.slice(at + 1));
    if (backing !== '-' && (at <= 0 || !Number.isSafeInteger(fileOffset))) {
      throw lines.bad(`'${backing}' is no backing`, '- or path@offset');
    }
    const file = backing === '-' ? '' : backing.slice(0, at);
    const isHelper = this.isHelper();
    return { line, gapNs, kind: 'mmap', address, length, prot, flags, file, fileOffset, isHelper };
  }

  /** shmat: a shared mapping of a segment that nothing else is known of. */
  private attach(line: number, gapNs: number): TraceEvent {
    const { lines } = this;
    const [address, length] = [lines.address(), lines.integer()];
    const file = `SYSV ${lines.rest().split(',')[0]}`;
    const how = { prot: 3, flags: mapFlags.s as number, file, fileOffset: 0, isHelper: false };
    return { line, gapNs, kind: 'mmap', address, length, ...how };
  }

  /** Threads share the address space, and a vfork borrows it; a fork would copy it. */
  private clone(): void {
    const { lines } = this;
    const what = lines.text();
    if (what === 'thread' || what === 'vfork') return;
    throw lines.bad(
      `clone '${what}' cannot be replayed: what the child does is not recorded`,
      'thread or vfork',
    );
  }

  private pageFault(line: number, gapNs: number): TraceEvent {
    const { lines } = this;
    const [address, pageCount] = [lines.address(), lines.integer()];
    const mode = lines.text();
    if (!/^[uk]M?$/.test(mode)) throw lines.bad(`'${mode}' is no mode`, 'u or k, and M');
    lines.integer();
    return { line, gapNs, kind: 'pf', address, pageCount };
  }

  private residentRun(): ResidentRun {
    const { lines } = this;
    const [address, pageCount, what] = [lines.address(), lines.integer(), lines.text()];
    if (what !== 'a' && what !== 'f') throw lines.bad(`'${what}' is no sort of page`, 'a or f');
    lines.end();
    return { address, pageCount, anonymous: what === 'a' };
  }

  private send(line: number, gapNs: number, kind: 'tx' | 'ptx'): TraceEvent {
    const { lines } = this;
    const [address, length, bytes] = [lines.address(), lines.integer(), lines.integer()];
    const peer = lines.signed();
    lines.skip(); // tag
    lines.skip(); // communicator
    lines.text(); // empty: only receives have a match
    const id = lines.integer();
    if (kind === 'tx') lines.skip(); // op
    // Operations with nobody (MPI_PROC_NULL) do not count.
    const message = peer >= 0 ? ++this.sends : 0;
    return { line, gapNs, kind, address, length, bytes, peer, message, id };
  }

  private receive(line: number, gapNs: number, kind: 'rx' | 'prx'): TraceEvent {
    const { lines } = this;
    const [address, length, bytes] = [lines.address(), lines.integer(), lines.integer()];
    let peer = lines.signed();
    lines.skip();
    lines.skip();
    let message = 0;
    if (!lines.dash()) {
      // `s.n` says the sender where the receive did not: it was posted for any source.
      const match = lines.text();
      const found = /^(?:(\d{1,4})\.)?(\d{1,10})$/.exec(match);
      if (!found) throw lines.bad(`'${match}' is no match`, 'n, s.n or -');
      if (found[1] !== undefined) peer = Number(found[1]);
      message = Number(found[2]);
    }
    const id = lines.integer();
    if (kind === 'rx') lines.skip();
    return { line, gapNs, kind, address, length, bytes, peer, message, id };
  }

  private isHelper(): boolean {
    if (!this.lines.hasMore) return false;
    this.lines.skip();
    return true;
  }

  private protection(): number {
    const text = this.lines.text();
    const prot = protectionOf(text);
    if (prot < 0) throw this.lines.bad(`'${text}' is not a protection`, 'such as rw-');
    return prot;
  }

  private advice(): number {
    const text = this.lines.text();
    const number = Object.hasOwn(adviceNumbers, text) ? adviceNumbers[text] : undefined;
    if (number === undefined) {
      throw this.lines.bad(
        `'${text}' is no advice known here`,
        Object.keys(adviceNumbers).join(', '),
      );
    }
    return number;
  }
}
