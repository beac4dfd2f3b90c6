/**
 * Commands of the driver: one after another, in firmware.
 *
 * Commands, table updates, fault resumes and PD suspends are carried out in the order in which they
 * arrive, each when the one before is done. Doorbells do not pass through here.
 */
import {
  ACCESS_ON_DEMAND,
  BURST,
  BURST_MAX_PAGES,
  BUS_COMMAND,
  BUS_FAULT_RESUME,
  BUS_PD_RESUME,
  BUS_PD_SUSPEND,
  BUS_TABLE_UPDATE,
  CMD_ALLOC_MW,
  CMD_ALLOC_PD,
  CMD_BAD_OPCODE,
  CMD_BAD_PARAMETER,
  CMD_BAD_RESOURCE,
  CMD_BUSY,
  CMD_CREATE_CQ,
  CMD_CREATE_MKEY,
  CMD_CREATE_QP,
  CMD_CREATE_SRQ,
  CMD_DEALLOC_MW,
  CMD_DEALLOC_PD,
  CMD_DESTROY_CQ,
  CMD_DESTROY_MKEY,
  CMD_DESTROY_QP,
  CMD_DESTROY_SRQ,
  CMD_MODIFY_CQ,
  CMD_MODIFY_MKEY,
  CMD_MODIFY_QP,
  CMD_MODIFY_SRQ,
  CMD_NOT_SUPPORTED,
  CMD_OK,
  CMD_QUERY_DIRTY,
  CMD_QUERY_QP,
  CMD_SWITCH_PAGE,
  type Engine,
  FRAME_WORDS,
  MKEY_CHILD,
  MKEY_INDIRECT,
  MKEY_PLAIN,
  NEVER,
  PAYLOAD_BYTES,
  QPA_WORDS,
  QPT_RC,
  QPT_UC,
  QPT_UD,
  RECORD_TABLE,
  REREG_ACCESS,
  REREG_PD,
  REREG_TRANSLATION,
  type TimePs,
} from '../transport/index.ts';
import { DirtyLog } from './memory/dirty-log.ts';
import type { Region } from './memory/region.ts';
import { cyclesPs } from './profile.ts';
import { modifyQueuePair, queryQueuePair } from './qp/modify.ts';
import type { Parts } from './qp/parts.ts';
import type { Resources } from './resources.ts';

/** The largest region: 2^40 bytes, so that a page index fits 32 bits. */
const MAX_REGION_BYTES = 2 ** 40;
/** One behind the highest address of a program: 47 bits, as on x86-64. */
const MAX_ADDRESS = 2 ** 47;
const REREG_ALL = REREG_TRANSLATION | REREG_PD | REREG_ACCESS;
const MAX_QUEUE_ENTRIES = 32_768;
/** Pages that one QUERY_DIRTY asks for at most. */
const MAX_DIRTY_PAGES = 4096;

export class Commands implements Engine {
  private readonly waiting: number[] = [];
  private readonly slot: number;
  /** COMMAND_DONE's result of the command at work, and whether the mailbox goes with it. */
  private result = 0;
  private hasMailbox = false;
  /** What QUERY_DIRTY answers in its place. */
  private dirtyBits: Uint8Array | undefined;
  private readonly mailbox = new Int32Array(QPA_WORDS);
  private readonly mailboxBytes = new Uint8Array(this.mailbox.buffer);

  constructor(
    private readonly parts: Parts,
    private readonly resources: Resources,
  ) {
    this.slot = parts.node.addEngine(this);
  }

  /** Takes a frame over; it is carried out when its turn comes. */
  submit(frame: number, now: TimePs): void {
    this.waiting.push(frame);
    if (this.waiting.length === 1) this.start(now);
  }

  fire(now: TimePs): void {
    const frame = this.waiting.shift() as number;
    this.execute(frame, now);
    this.parts.pool.release(frame);
    if (this.waiting.length > 0) this.start(now);
    else this.parts.node.queue.arm(this.slot, NEVER);
  }

  private start(now: TimePs): void {
    this.parts.node.queue.arm(this.slot, now + this.costPs(this.waiting[0]));
  }

  private costPs(frame: number): TimePs {
    const { profile, pool } = this.parts;
    const type = pool.words[frame * FRAME_WORDS];
    if (type === BUS_FAULT_RESUME) return 1;
    if (type !== BUS_TABLE_UPDATE) return profile.commandPs;
    const entries = pool.words[frame * FRAME_WORDS + PAYLOAD_BYTES] / 4096;
    return cyclesPs(profile, entries * profile.tableEntryCycles);
  }

  private execute(frame: number, now: TimePs): void {
    const { parts, resources } = this;
    const words = parts.pool.words;
    const base = frame * FRAME_WORDS;
    const tag = words[base + 1];
    this.result = 0;
    this.hasMailbox = false;
    this.dirtyBits = undefined;
    switch (words[base]) {
      case BUS_FAULT_RESUME:
        parts.faults.resume(tag, words[base + 2] === 0, now);
        return;
      case BUS_TABLE_UPDATE: {
        const status = this.tableUpdate(frame, now);
        if (tag !== 0) parts.bus.commandDone(now, tag, status, 0);
        return;
      }
      case BUS_PD_SUSPEND:
        parts.bus.commandDone(now, tag, resources.suspend(words[base + 2], now), 0);
        return;
      case BUS_PD_RESUME:
        parts.bus.commandDone(now, tag, resources.resume(words[base + 2], now), 0);
        return;
      case BUS_COMMAND: {
        const status = this.command(frame, now);
        const mailbox = this.dirtyBits ?? (this.hasMailbox ? this.mailboxBytes : undefined);
        parts.bus.commandDone(now, words[base + 2], status, this.result, mailbox);
        return;
      }
      default:
        parts.bus.commandDone(now, tag, CMD_BAD_OPCODE, 0);
    }
  }

  private command(frame: number, now: TimePs): number {
    const { parts, resources } = this;
    const words = parts.pool.words;
    const p = frame * FRAME_WORDS + 3;
    switch (words[frame * FRAME_WORDS + 1]) {
      case CMD_ALLOC_PD:
        this.result = resources.allocatePd();
        return CMD_OK;
      case CMD_DEALLOC_PD:
        return resources.deallocatePd(words[p]);
      case CMD_CREATE_CQ:
        if (!isQueueSize(words[p])) return CMD_BAD_PARAMETER;
        this.result = resources.createCq(words[p]);
        return CMD_OK;
      case CMD_MODIFY_CQ: {
        const cq = resources.findCq(words[p]);
        if (cq === undefined) return CMD_BAD_RESOURCE;
        if (!isU16(words[p + 1]) || !isU16(words[p + 2])) return CMD_BAD_PARAMETER;
        cq.moderate(words[p + 1], words[p + 2]);
        return CMD_OK;
      }
      case CMD_DESTROY_CQ:
        return resources.destroyCq(words[p]);
      case CMD_CREATE_MKEY:
        return this.createMkey(frame, p, now);
      case CMD_DESTROY_MKEY:
        return this.destroyMkey(words[p], now);
      case CMD_MODIFY_MKEY:
        return this.modifyMkey(frame, p, now);
      case CMD_QUERY_DIRTY:
        return this.queryDirty(words[p], words[p + 1], words[p + 2]);
      case CMD_SWITCH_PAGE:
        return this.switchPage(words[p], words[p + 1], words[p + 2], now);
      case CMD_ALLOC_MW:
        if (!resources.hasPd(words[p])) return CMD_BAD_RESOURCE;
        this.result = resources.mkeys.createWindow(words[p]);
        return CMD_OK;
      case CMD_DEALLOC_MW:
        return resources.mkeys.destroyWindow(words[p]) ? CMD_OK : CMD_BAD_RESOURCE;
      case CMD_CREATE_SRQ:
        if (!resources.hasPd(words[p])) return CMD_BAD_RESOURCE;
        if (!isQueueSize(words[p + 1]) || words[p + 2] >>> 0 > words[p + 1]) {
          return CMD_BAD_PARAMETER;
        }
        this.result = resources.createSrq(words[p], words[p + 1], words[p + 2]);
        return CMD_OK;
      case CMD_MODIFY_SRQ: {
        const srq = resources.findSrq(words[p]);
        if (srq === undefined) return CMD_BAD_RESOURCE;
        if (words[p + 1] >>> 0 > srq.entries) return CMD_BAD_PARAMETER;
        srq.setLimit(words[p + 1]);
        return CMD_OK;
      }
      case CMD_DESTROY_SRQ:
        return resources.destroySrq(words[p]);
      case CMD_CREATE_QP:
        return this.createQueuePair(p);
      case CMD_MODIFY_QP: {
        const qp = resources.findQueuePair(words[p]);
        if (qp === undefined) return CMD_BAD_RESOURCE;
        if (!this.loadMailbox(frame)) return CMD_BAD_PARAMETER;
        const isDone = modifyQueuePair(qp, words[p + 1], this.mailbox, parts.port, now);
        return isDone ? CMD_OK : CMD_BAD_PARAMETER;
      }
      case CMD_QUERY_QP: {
        const qp = resources.findQueuePair(words[p]);
        if (qp === undefined) return CMD_BAD_RESOURCE;
        queryQueuePair(qp, this.mailbox);
        this.hasMailbox = true;
        // sq_draining of ibv_qp_attr.
        this.result = qp.requester.drain.isActive ? 1 : 0;
        return CMD_OK;
      }
      case CMD_DESTROY_QP:
        return resources.destroyQueuePair(words[p], now);
      default:
        return CMD_BAD_OPCODE;
    }
  }

  private createMkey(frame: number, p: number, now: TimePs): number {
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

  private destroyMkey(key: number, now: TimePs): number {
    const { parts, resources } = this;
    const region = resources.mkeys.find(key);
    if (region === undefined) return CMD_BAD_RESOURCE;
    if (resources.mkeys.hasWindows(region)) return CMD_BUSY;
    parts.translator.forget(region);
    resources.mkeys.destroy(region);
    parts.node.digest.record(RECORD_TABLE, now, region.key, -1);
    return CMD_OK;
  }

  private modifyMkey(frame: number, p: number, now: TimePs): number {
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

  private createQueuePair(p: number): number {
    const { parts, resources } = this;
    const words = parts.pool.words;
    const [pd, sendEntries, receiveEntries] = [words[p], words[p + 1], words[p + 2]];
    const [type, srqn] = [words[p + 5], words[p + 6]];
    if (type !== QPT_RC && type !== QPT_UC && type !== QPT_UD) return CMD_BAD_PARAMETER;
    // A queue pair that never receives, or takes its receives from elsewhere, has no queue for them.
    if (!isQueueSize(sendEntries) || (receiveEntries !== 0 && !isQueueSize(receiveEntries))) {
      return CMD_BAD_PARAMETER;
    }
    const sendCq = resources.findCq(words[p + 3]);
    const receiveCq = resources.findCq(words[p + 4]);
    const srq = resources.findSrq(srqn);
    if (sendCq === undefined || receiveCq === undefined) return CMD_BAD_RESOURCE;
    if (srqn !== 0 && srq === undefined) return CMD_BAD_RESOURCE;
    const signalsAll = words[p + 7] !== 0;
    const init = { type, sendEntries, receiveEntries, sendCq, receiveCq, srq, signalsAll };
    const qp = resources.createQueuePair(pd, init);
    if (qp === undefined) return CMD_BAD_RESOURCE;
    this.result = qp.qpn;
    return CMD_OK;
  }

  /** Reads and clears the record of what the adapter has written; the first time it begins one. */
  private queryDirty(key: number, first: number, count: number): number {
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
  private switchPage(key: number, page: number, entry: number, now: TimePs): number {
    const { parts, resources } = this;
    const region = resources.mkeys.find(key);
    if (!parts.profile.dirtyTracking) return CMD_NOT_SUPPORTED;
    if (region === undefined) return CMD_BAD_RESOURCE;
    if (region.dirty === undefined || page < 0 || page >= region.table.length) {
      return CMD_BAD_PARAMETER;
    }
    if (region.dirty.take(page)) return CMD_OK;
    parts.translator.setEntry(region, page, entry);
    parts.node.digest.record(RECORD_TABLE, now, region.key, page, 1, entry);
    this.result = 1;
    return CMD_OK;
  }

  /** Reads the mailbox of a command; false when it is too short. */
  private loadMailbox(frame: number): boolean {
    const { trailer } = this.parts;
    trailer.load(frame);
    if (trailer.length < QPA_WORDS * 4) return false;
    for (let i = 0; i < QPA_WORDS; i++) this.mailbox[i] = trailer.word(i * 4);
    return true;
  }

  /** Whether an update only sets entries of a fixed region that were never set. */
  private fillsHoles(region: Region, first: number, count: number, entries: number): boolean {
    const { burstEntries } = this.parts.pool;
    for (let i = 0; i < count; i++) {
      if (burstEntries[entries + i] === 0 || region.table.get(first + i) !== 0) return false;
    }
    return true;
  }

  private tableUpdate(frame: number, now: TimePs): number {
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
}

function isQueueSize(entries: number): boolean {
  return entries >= 1 && entries <= MAX_QUEUE_ENTRIES;
}

/** Whether an indirect key's entries may be of 2^`shift` bytes: whole pages, and it begins with one. */
function isEntryShift(shift: number, address: number): boolean {
  return shift >= 21 && shift <= 40 && address % 2 ** shift === 0;
}

function isU16(value: number): boolean {
  return value >= 0 && value <= 0xffff;
}
