/**
 * Commands of the driver: one after another, in firmware.
 *
 * Commands, table updates, fault resumes and PD suspends are carried out in the order in which they
 * arrive, each when the one before is done. Doorbells do not pass through here. What the commands about
 * memory keys and their tables do is `memory/key-commands.ts`.
 */
import {
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
  CMD_OK,
  CMD_QUERY_DIRTY,
  CMD_QUERY_QP,
  CMD_SWITCH_PAGE,
  type Engine,
  FRAME_WORDS,
  NEVER,
  PAYLOAD_BYTES,
  QPA_WORDS,
  QPT_RC,
  QPT_UC,
  QPT_UD,
  type TimePs,
} from '../transport/index.ts';
import { KeyCommands } from './memory/key-commands.ts';
import { cyclesPs } from './profile.ts';
import { modifyQueuePair, queryQueuePair } from './qp/modify.ts';
import type { Parts } from './qp/parts.ts';
import type { Resources } from './resources.ts';

const MAX_QUEUE_ENTRIES = 32_768;

export class Commands implements Engine {
  private readonly waiting: number[] = [];
  private readonly slot: number;
  /** COMMAND_DONE's result of the command at work, and whether the mailbox goes with it. */
  private result = 0;
  private hasMailbox = false;
  private readonly keys: KeyCommands;
  private readonly mailbox = new Int32Array(QPA_WORDS);
  private readonly mailboxBytes = new Uint8Array(this.mailbox.buffer);

  constructor(
    private readonly parts: Parts,
    private readonly resources: Resources,
  ) {
    this.slot = parts.node.addEngine(this);
    this.keys = new KeyCommands(parts, resources);
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
    this.keys.begin();
    switch (words[base]) {
      case BUS_FAULT_RESUME:
        parts.faults.resume(tag, words[base + 2] === 0, now);
        return;
      case BUS_TABLE_UPDATE: {
        const status = this.keys.update(frame, now);
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
        const mailbox = this.keys.dirtyBits ?? (this.hasMailbox ? this.mailboxBytes : undefined);
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
        return this.keyResult(this.keys.create(frame, p, now));
      case CMD_DESTROY_MKEY:
        return this.keys.destroy(words[p], now);
      case CMD_MODIFY_MKEY:
        return this.keys.modify(frame, p, now);
      case CMD_QUERY_DIRTY:
        return this.keyResult(this.keys.queryDirty(words[p], words[p + 1], words[p + 2]));
      case CMD_SWITCH_PAGE:
        return this.keyResult(this.keys.switchPage(words[p], words[p + 1], words[p + 2], now));
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

  /** Takes over the result of a command about keys. */
  private keyResult(status: number): number {
    this.result = this.keys.result;
    return status;
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

  /** Reads the mailbox of a command; false when it is too short. */
  private loadMailbox(frame: number): boolean {
    const { trailer } = this.parts;
    trailer.load(frame);
    if (trailer.length < QPA_WORDS * 4) return false;
    for (let i = 0; i < QPA_WORDS; i++) this.mailbox[i] = trailer.word(i * 4);
    return true;
  }
}

function isQueueSize(entries: number): boolean {
  return entries >= 1 && entries <= MAX_QUEUE_ENTRIES;
}

function isU16(value: number): boolean {
  return value >= 0 && value <= 0xffff;
}
