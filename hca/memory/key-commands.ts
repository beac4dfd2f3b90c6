/**
 * Commands about memory keys and their tables: what CREATE_MKEY and its kind, TABLE_UPDATE and the
 * commands about written pages do. Each returns a status (CMD_*).
 *
 * Does not own when a command is carried out (`commands.ts`) nor what a key is (`region.ts`).
 */
import {
  ACCESS_ON_DEMAND,
  BURST,
  BURST_MAX_PAGES,
  CMD_BAD_PARAMETER,
  CMD_BAD_RESOURCE,
  CMD_BUSY,
  CMD_NOT_SUPPORTED,
  CMD_OK,
  FRAME_WORDS,
  MKEY_CHILD,
  MKEY_INDIRECT,
  MKEY_PLAIN,
  PAYLOAD_BYTES,
  RECORD_TABLE,
  REREG_ACCESS,
  REREG_PD,
  REREG_TRANSLATION,
  type TimePs,
} from '../../transport/index.ts';
import type { Parts } from '../qp/parts.ts';
import type { Resources } from '../resources.ts';
import { DirtyLog } from './dirty-log.ts';
import type { Region } from './region.ts';

/** The largest region of pages: 2^40 bytes, so that a page index fits 32 bits. */
const MAX_REGION_BYTES = 2 ** 40;
/** One behind the highest address of a program: 47 bits, as on x86-64. */
const MAX_ADDRESS = 2 ** 47;
const REREG_ALL = REREG_TRANSLATION | REREG_PD | REREG_ACCESS;
/** Pages that one QUERY_DIRTY asks for at most. */
const MAX_DIRTY_PAGES = 4096;

export class KeyCommands {
  /** COMMAND_DONE's result of the command at work. */
  result = 0;
  /** The mailbox that QUERY_DIRTY answers with. */
  dirtyBits: Uint8Array | undefined;

  constructor(
    private readonly parts: Parts,
    private readonly resources: Resources,
  ) {}

  /** A new command: nothing of the one before is left. */
  begin(): void {
    this.result = 0;
    this.dirtyBits = undefined;
  }

  /** CREATE_MKEY; `p` is the frame's first parameter. */
  create(frame: number, p: number, now: TimePs): number {
    const { parts, resources } = this;
    const words = parts.pool.words;
    const address = parts.pool.doubles[frame * 2];
    const length = parts.pool.doubles[frame * 2 + 1];
    const [pd, access, variant, kind] = [words[p], words[p + 1], words[p + 2], words[p + 3]];
    const isFixed = parts.profile.fixedRegions;
    if (isFixed && (kind !== MKEY_PLAIN || (access & ACCESS_ON_DEMAND) !== 0)) {
      return CMD_NOT_SUPPORTED;
    }
    if (kind < MKEY_PLAIN || kind > MKEY_CHILD) return CMD_BAD_PARAMETER;
    const entryShift = kind === MKEY_INDIRECT ? words[p + 4] : 0;
    if (kind === MKEY_INDIRECT && !isEntryShift(entryShift, address)) return CMD_BAD_PARAMETER;
    const most = kind === MKEY_INDIRECT ? MAX_ADDRESS : MAX_REGION_BYTES;
    if (length < 1 || length > most || address + length > MAX_ADDRESS) return CMD_BAD_PARAMETER;
    if (!resources.hasPd(pd)) return CMD_BAD_RESOURCE;
    const entryPages = kind === MKEY_INDIRECT ? 2 ** (entryShift - 12) : 0;
    const isChild = kind === MKEY_CHILD;
    const region = resources.mkeys.create(pd, access, variant, address, length, {
      entryPages,
      isChild,
      isFixed,
    });
    parts.node.digest.record(RECORD_TABLE, now, region.key, pd, access, length | 0);
    this.result = region.key;
    return CMD_OK;
  }

  destroy(key: number, now: TimePs): number {
    const { parts, resources } = this;
    const region = resources.mkeys.find(key);
    if (region === undefined) return CMD_BAD_RESOURCE;
    if (resources.mkeys.hasWindows(region)) return CMD_BUSY;
    parts.translator.forget(region);
    resources.mkeys.destroy(region);
    parts.node.digest.record(RECORD_TABLE, now, region.key, -1);
    return CMD_OK;
  }

  /** MODIFY_MKEY. */
  modify(frame: number, p: number, now: TimePs): number {
    const { parts, resources } = this;
    const words = parts.pool.words;
    const region = resources.mkeys.find(words[p]);
    const flags = words[p + 1];
    if (region === undefined) return CMD_BAD_RESOURCE;
    if (region.isFixed) return CMD_NOT_SUPPORTED;
    if (region.entryPages > 0 || flags < 1 || (flags & ~REREG_ALL) !== 0) return CMD_BAD_PARAMETER;
    if (resources.mkeys.hasWindows(region)) return CMD_BUSY;
    const pd = (flags & REREG_PD) !== 0 ? words[p + 2] : region.pd;
    const access = (flags & REREG_ACCESS) !== 0 ? words[p + 3] : region.access;
    if (!resources.hasPd(pd)) return CMD_BAD_RESOURCE;
    if ((flags & REREG_TRANSLATION) === 0) resources.mkeys.change(region, pd, access);
    else {
      const address = parts.pool.doubles[frame * 2];
      const length = parts.pool.doubles[frame * 2 + 1];
      if (length < 1 || length > MAX_REGION_BYTES || address + length > MAX_ADDRESS) {
        return CMD_BAD_PARAMETER;
      }
      resources.mkeys.change(region, pd, access, address, length);
    }
    parts.translator.forget(region);
    parts.node.digest.record(RECORD_TABLE, now, region.key, pd, access, flags);
    return CMD_OK;
  }

  /** TABLE_UPDATE. */
  update(frame: number, now: TimePs): number {
    const { parts, resources } = this;
    const words = parts.pool.words;
    const base = frame * FRAME_WORDS;
    const region = resources.mkeys.find(words[base + 2]);
    if (region === undefined) return CMD_BAD_RESOURCE;
    const first = words[base + 3];
    const count = words[base + PAYLOAD_BYTES] / 4096;
    if (count < 1 || first < 0 || first + count > region.table.length) return CMD_BAD_PARAMETER;
    const entries = words[base + BURST] * BURST_MAX_PAGES;
    if (region.isFixed && !this.fillsHoles(region, first, count, entries)) return CMD_NOT_SUPPORTED;
    for (let i = 0; i < count; i++) {
      parts.translator.setEntry(region, first + i, parts.pool.burstEntries[entries + i]);
    }
    const sample = parts.pool.burstEntries[entries];
    parts.node.digest.record(RECORD_TABLE, now, region.key, first, count, sample);
    return CMD_OK;
  }

  /** Whether an update only sets entries of a fixed region that were never set. */
  private fillsHoles(region: Region, first: number, count: number, entries: number): boolean {
    const { burstEntries } = this.parts.pool;
    for (let i = 0; i < count; i++) {
      if (burstEntries[entries + i] === 0 || region.table.get(first + i) !== 0) return false;
    }
    return true;
  }

  /** Reads and clears the record of what the adapter has written; the first time it begins one. */
  queryDirty(key: number, first: number, count: number): number {
    const region = this.resources.mkeys.find(key);
    if (!this.parts.profile.dirtyTracking) return CMD_NOT_SUPPORTED;
    if (region === undefined) return CMD_BAD_RESOURCE;
    const isInside = first >= 0 && count >= 1 && first + count <= region.table.length;
    if (!isInside || count > MAX_DIRTY_PAGES || region.entryPages > 0) return CMD_BAD_PARAMETER;
    region.dirty ??= new DirtyLog(region.table.length);
    const bits = new Uint8Array(Math.ceil(count / 8));
    for (let i = 0; i < count; i++) {
      if (!region.dirty.take(first + i)) continue;
      bits[i >>> 3] |= 1 << (i & 7);
      this.result++;
    }
    this.dirtyBits = bits;
    return CMD_OK;
  }

  /** Sets the entry of a page unless the adapter has written it. */
  switchPage(key: number, page: number, entry: number, now: TimePs): number {
    const { parts, resources } = this;
    const region = resources.mkeys.find(key);
    if (!parts.profile.dirtyTracking) return CMD_NOT_SUPPORTED;
    if (region === undefined) return CMD_BAD_RESOURCE;
    if (region.isFixed) return CMD_NOT_SUPPORTED;
    if (region.dirty === undefined || page < 0 || page >= region.table.length) {
      return CMD_BAD_PARAMETER;
    }
    if (region.dirty.take(page)) return CMD_OK;
    parts.translator.setEntry(region, page, entry);
    parts.node.digest.record(RECORD_TABLE, now, region.key, page, 1, entry);
    this.result = 1;
    return CMD_OK;
  }
}

/** Whether an indirect key's entries may be of 2^`shift` bytes: whole pages, and it begins with one. */
function isEntryShift(shift: number, address: number): boolean {
  return shift >= 21 && shift <= 40 && address % 2 ** shift === 0;
}
