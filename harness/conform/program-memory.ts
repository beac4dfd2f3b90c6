/**
 * Memory of a captured program on our host: its regions and windows at the captured addresses, and our
 * keys for its keys.
 */
import {
  type MemoryRegion,
  type MemoryWindow,
  nextRkey,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type ScatterEntry,
} from '../../kernel/index.ts';
import { Keys } from './keys.ts';
import { Words } from './rcpeer-text.ts';
import type { RegionSetup } from './setup.ts';
import type { Stage } from './stage.ts';

/** Where the operands of atomic writes and the receives of tools lie: no captured program is there. */
export const SCRATCH_ADDRESS = 2 ** 40;
/** Scatter entries that rcpeer makes at most. */
const SGES_MAX = 30;

interface OpenRegion extends RegionSetup {
  readonly ours: MemoryRegion;
}

export class ProgramMemory {
  readonly keys = new Keys();
  readonly scratch: MemoryRegion;
  private readonly regions = new Map<number, OpenRegion>();
  private readonly windows = new Map<number, MemoryWindow>();

  constructor(
    private readonly stage: Stage,
    private readonly pd: number,
    scratchBytes: number,
  ) {
    this.scratch = this.register(SCRATCH_ADDRESS, pageUp(scratchBytes), 1);
  }

  /** The first bytes of what the last receive of a tool got. */
  received(length: number): Uint8Array {
    return this.stage.host.mm.read(this.scratch.address, length);
  }

  /** The bytes a check or dump command would see now. Undefined where it has no such range. */
  read(words: Words): Uint8Array | undefined {
    const region = this.regions.get(words.number('mr'));
    if (region === undefined || !this.has(words)) return undefined;
    return this.stage.host.mm.read(region.address + words.number('off'), words.number('len'));
  }

  /** Whether the range that a command names lies in its region. */
  has(words: Words): boolean {
    const length = this.regions.get(words.number('mr'))?.length ?? -1;
    return words.number('off') + words.number('len') <= length;
  }

  /** Whether the memory that a command names was on demand at the captured host. */
  isOnDemand(words: Words): boolean {
    return this.regions.get(words.number('mr'))?.isOnDemand === true;
  }

  /** Writes bytes to where the captured host must have had them; skips what it had not registered. */
  preset(address: number, bytes: Uint8Array): void {
    const { mm } = this.stage.host;
    if (mm.isMapped(address, bytes.length)) this.stage.run('preset', mm.write(address, bytes));
  }

  /** Whether `address` is inside memory that was on demand. */
  hasOnDemandAt(address: number): boolean {
    for (const region of this.regions.values()) {
      const offset = address - region.address;
      if (region.isOnDemand && offset >= 0 && offset < region.length) return true;
    }
    return false;
  }

  /** The scatter list of a post or recv command: `sges` pieces of a range of a region. */
  buffer(words: Words, i: number, length: number): ScatterEntry[] {
    const region = this.regions.get(words.number('mr'));
    const count = Math.min(SGES_MAX, words.number('sges', 1));
    const lkey = words.has('lkey')
      ? this.keys.toOurs(words.number('lkey') >>> 0)
      : (region?.ours.lkey ?? this.keys.toOurs(-1));
    const start = (region?.address ?? 0) + words.number('off') + i * words.number('step');
    const entries: ScatterEntry[] = [];
    let done = 0;
    for (let k = 0; k < count; k++) {
      const bytes = k === count - 1 ? length - done : Math.floor(length / count);
      entries.push({ address: start + done, length: bytes, lkey });
      done += bytes;
    }
    return entries;
  }

  /**
   * Gives a window its next key and returns it with the region and the range that a bind command names;
   * `answer` says the captured key. Undefined where there is no such window or region.
   */
  rebind(
    words: Words,
    answer: string,
    place: string,
  ): { readonly rkey: number; readonly range: ScatterEntry } | undefined {
    const window = this.windows.get(words.number('mw'));
    const region = this.regions.get(words.number('mr'));
    if (window === undefined || region === undefined) return undefined;
    window.rkey = nextRkey(window.rkey);
    this.keys.add(new Words(answer, place).number('rkey') >>> 0, window.rkey);
    const address = region.address + words.number('off');
    const range = { address, length: words.number('len'), lkey: region.ours.lkey };
    return { rkey: window.rkey, range };
  }

  private register(address: number, length: number, access: number): MemoryRegion {
    const { mm, verbs } = this.stage.host;
    const end = pageUp(address + length);
    // Pages that it shares with another region are there already, and are not to be mapped anew.
    for (let page = address - (address % PAGE_BYTES); page < end; page += PAGE_BYTES) {
      if (mm.isMapped(page, PAGE_BYTES)) continue;
      let bytes = PAGE_BYTES;
      while (page + bytes < end && !mm.isMapped(page + bytes, PAGE_BYTES)) bytes += PAGE_BYTES;
      this.stage.run('mmap', mm.mmap(page, bytes, PROT_READ | PROT_WRITE));
      page += bytes - PAGE_BYTES;
    }
    return this.stage.run('reg_mr', verbs.regMr(this.pd, address, length, access));
  }

  /** Registers a region as the captured program did. */
  add(region: RegionSetup): void {
    const ours = this.register(region.address, region.length, region.access);
    this.regions.set(region.id, { ...region, ours });
    this.keys.add(region.lkey, ours.lkey);
    this.keys.add(region.rkey, ours.rkey);
  }

  /** Deregisters a region, and unmaps it. */
  drop(id: number): void {
    const region = this.regions.get(id);
    if (region === undefined) return;
    this.regions.delete(id);
    const { mm, verbs } = this.stage.host;
    this.stage.run('dereg_mr', verbs.deregMr(region.ours));
    this.stage.run('munmap', mm.munmap(region.address, pageUp(region.length)));
  }

  /** Allocates a window; `answer` is the line that says its captured key. */
  allocateWindow(id: number, answer: string, place: string): void {
    const ours = this.stage.run('alloc_mw', this.stage.host.verbs.allocMw(this.pd));
    this.windows.set(id, ours);
    this.keys.add(new Words(answer, place).number('rkey') >>> 0, ours.rkey);
  }

  /** Writes bytes to where a command says; skips what is no region. */
  write(words: Words, bytes: Uint8Array): void {
    const region = this.regions.get(words.number('mr'));
    if (region === undefined) return;
    const address = region.address + words.number('off');
    this.stage.run('write', this.stage.host.mm.write(address, bytes));
  }
}

/** Whole pages for so many bytes, one at least. */
export function pageUp(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / PAGE_BYTES)) * PAGE_BYTES;
}
