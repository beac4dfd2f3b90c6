/**
 * Commands of the driver: one after another, in firmware.
 *
 * Commands, table updates, fault resumes and PD suspends are carried out in the order in which they
 * arrive, each when the one before is done. Doorbells do not pass through here.
 */
import {
  BURST,
  BURST_MAX_PAGES,
  BUS_COMMAND,
  BUS_FAULT_RESUME,
  BUS_PD_RESUME,
  BUS_PD_SUSPEND,
  BUS_TABLE_UPDATE,
  CMD_ALLOC_PD,
  CMD_BAD_OPCODE,
  CMD_BAD_PARAMETER,
  CMD_BAD_RESOURCE,
  CMD_CREATE_CQ,
  CMD_CREATE_MKEY,
  CMD_CREATE_QP,
  CMD_DEALLOC_PD,
  CMD_DESTROY_CQ,
  CMD_DESTROY_MKEY,
  CMD_DESTROY_QP,
  CMD_MODIFY_QP,
  CMD_OK,
  type Engine,
  FRAME_WORDS,
  mtuBytes,
  NEVER,
  PAYLOAD_BYTES,
  QPS_ERR,
  QPS_INIT,
  QPS_RESET,
  QPS_RTR,
  QPS_RTS,
  RECORD_TABLE,
  type TimePs,
  WC_SUCCESS,
} from '../transport/index.ts';
import { cyclesPs } from './profile.ts';
import type { Parts } from './qp/parts.ts';
import type { QueuePair } from './qp/queue-pair.ts';
import type { Resources } from './resources.ts';

/** The largest region: 2^40 bytes, so that a page index fits 32 bits. */
const MAX_REGION_BYTES = 2 ** 40;
const MAX_QUEUE_ENTRIES = 32_768;

export class Commands implements Engine {
  private readonly waiting: number[] = [];
  private readonly slot: number;
  /** COMMAND_DONE's result of the command at work. */
  private result = 0;

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
      case BUS_COMMAND:
        parts.bus.commandDone(now, words[base + 2], this.command(frame, now), this.result);
        return;
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
        if (words[p] < 1 || words[p] > MAX_QUEUE_ENTRIES) return CMD_BAD_PARAMETER;
        this.result = resources.createCq();
        return CMD_OK;
      case CMD_DESTROY_CQ:
        return resources.destroyCq(words[p]);
      case CMD_CREATE_MKEY: {
        const address = parts.pool.doubles[frame * 2];
        const length = parts.pool.doubles[frame * 2 + 1];
        if (length < 1 || length > MAX_REGION_BYTES || address + length > 2 ** 47) {
          return CMD_BAD_PARAMETER;
        }
        if (!resources.hasPd(words[p])) return CMD_BAD_RESOURCE;
        const region = resources.mkeys.create(
          words[p],
          words[p + 1],
          words[p + 2],
          address,
          length,
        );
        parts.node.digest.record(RECORD_TABLE, now, region.key, words[p], words[p + 1], length | 0);
        this.result = region.key;
        return CMD_OK;
      }
      case CMD_DESTROY_MKEY: {
        const region = resources.mkeys.find(words[p]);
        if (region === undefined) return CMD_BAD_RESOURCE;
        parts.translator.forget(region);
        resources.mkeys.destroy(region);
        parts.node.digest.record(RECORD_TABLE, now, region.key, -1);
        return CMD_OK;
      }
      case CMD_CREATE_QP: {
        const [pd, send, receive] = [words[p], words[p + 1], words[p + 2]];
        if (send < 1 || send > MAX_QUEUE_ENTRIES) return CMD_BAD_PARAMETER;
        if (receive < 0 || receive > MAX_QUEUE_ENTRIES) return CMD_BAD_PARAMETER;
        if (!resources.hasCq(words[p + 3]) || !resources.hasCq(words[p + 4]))
          return CMD_BAD_RESOURCE;
        const qp = resources.createQueuePair(pd, send, receive, words[p + 3], words[p + 4]);
        if (qp === undefined) return CMD_BAD_RESOURCE;
        this.result = qp.qpn;
        return CMD_OK;
      }
      case CMD_MODIFY_QP: {
        const qp = resources.findQueuePair(words[p]);
        return qp === undefined ? CMD_BAD_RESOURCE : this.modify(qp, p, now);
      }
      case CMD_DESTROY_QP:
        return resources.destroyQueuePair(words[p], now);
      default:
        return CMD_BAD_OPCODE;
    }
  }

  /** Carries out MODIFY_QP: RESET -> INIT -> RTR -> RTS in order, and ERR from anywhere. */
  private modify(qp: QueuePair, p: number, now: TimePs): number {
    const words = this.parts.pool.words;
    const state = words[p + 1];
    const attributes = qp.attributes;
    if (state === QPS_ERR) {
      qp.fail(WC_SUCCESS, now);
      return CMD_OK;
    }
    if (state === QPS_INIT && qp.state === QPS_RESET) {
      attributes.access = words[p + 7] & 0xff;
      qp.state = QPS_INIT;
      return CMD_OK;
    }
    if (state === QPS_RTR && qp.state === QPS_INIT) {
      const code = words[p + 2] & 0xff;
      if (code < 1 || code > 5) return CMD_BAD_PARAMETER;
      attributes.destQpn = words[p + 2] >>> 8;
      attributes.mtu = mtuBytes(code);
      attributes.destLid = words[p + 6];
      attributes.minRnrTimer = words[p + 5] & 0x1f;
      attributes.access = words[p + 7] & 0xff;
      qp.responder.start(words[p + 4]);
      qp.state = QPS_RTR;
      return CMD_OK;
    }
    if (state === QPS_RTS && qp.state === QPS_RTR) {
      attributes.timeout = (words[p + 5] >>> 24) & 0x1f;
      attributes.retryCnt = (words[p + 5] >>> 16) & 7;
      attributes.rnrRetry = (words[p + 5] >>> 8) & 7;
      attributes.maxRdAtomic = (words[p + 7] >>> 8) & 0xff;
      qp.requester.start(words[p + 3]);
      qp.state = QPS_RTS;
      return CMD_OK;
    }
    return CMD_BAD_PARAMETER;
  }

  private tableUpdate(frame: number, now: TimePs): number {
    const { parts, resources } = this;
    const words = parts.pool.words;
    const base = frame * FRAME_WORDS;
    const region = resources.mkeys.find(words[base + 2]);
    if (region === undefined) return CMD_BAD_RESOURCE;
    const first = words[base + 3];
    const count = words[base + PAYLOAD_BYTES] / 4096;
    if (count < 1 || first < 0 || first + count > region.mtt.length) return CMD_BAD_PARAMETER;
    const entries = words[base + BURST] * BURST_MAX_PAGES;
    for (let i = 0; i < count; i++) {
      parts.translator.setEntry(region, first + i, parts.pool.burstEntries[entries + i]);
    }
    const sample = parts.pool.burstEntries[entries];
    parts.node.digest.record(RECORD_TABLE, now, region.key, first, count, sample);
    return CMD_OK;
  }
}
