/**
 * The host's end of the bus: what goes to the adapter, and when it gets there.
 *
 * One transmitter, so messages arrive in the order in which they were sent. Sends are recorded in the
 * digest with their time of arrival.
 */
import {
  BURST,
  BUS_COMMAND,
  BUS_DMA_READ_DATA,
  BUS_SEND_DOORBELL,
  BUS_TABLE_UPDATE,
  busTransferBytes,
  FRAME_WORDS,
  type FramePool,
  Link,
  type Node,
  PAYLOAD_BYTES,
  type Port,
  RECORD_FRAME_SENT,
  type TimePs,
  US,
} from '../../transport/index.ts';

import type { Sim } from '../sched/completion.ts';
import type { Timers } from '../sched/timers.ts';

/** A work request written through the doorbell page, or a command: 64 bytes, segments or mailbox on top. */
const DOORBELL_BYTES = 64;
/** A plain doorbell register. */
const REGISTER_BYTES = 8;
/** Bytes of one entry in the adapter's table (MTT of mlx5). */
const TABLE_ENTRY_BYTES = 8;
/** Backlog at which those who can wait do: the posted-write buffers of the root port. */
const BACKLOG_PS: TimePs = 1 * US;

export class AdapterBus {
  private readonly link: Link;

  constructor(
    readonly node: Node,
    readonly pool: FramePool,
    private readonly port: Port,
    private readonly timers: Timers,
    rateGbps: number,
  ) {
    this.link = new Link(rateGbps, port.latencyPs);
  }

  /** A new message of `type`; its words are filled in by the caller. */
  message(type: number): number {
    const frame = this.pool.allocate();
    this.pool.words[frame * FRAME_WORDS] = type;
    return frame;
  }

  /** Sends a message that is ready in `delayPs`; it belongs to the adapter from here on. */
  send(frame: number, delayPs: TimePs = 0): void {
    const { node, pool } = this;
    const arrivalPs = this.link.transmit(
      node.now + delayPs,
      busTransferBytes(this.payloadBytes(frame)),
    );
    if (node.digest.enabled) {
      pool.record(node.digest, RECORD_FRAME_SENT, arrivalPs, this.port.index, frame);
    }
    this.port.send(arrivalPs, frame);
  }

  /** Sleeps while more is waiting to be sent than the root port buffers. */
  *room(): Sim<void> {
    const backlogPs = this.link.freePs - this.node.now;
    if (backlogPs > BACKLOG_PS) yield* this.timers.sleep(backlogPs);
  }

  private payloadBytes(frame: number): number {
    const { words } = this.pool;
    const base = frame * FRAME_WORDS;
    switch (words[base]) {
      case BUS_DMA_READ_DATA:
        return words[base + PAYLOAD_BYTES];
      case BUS_TABLE_UPDATE:
        return this.pool.burstPages(words[base + BURST]) * TABLE_ENTRY_BYTES;
      case BUS_SEND_DOORBELL:
      case BUS_COMMAND:
        return DOORBELL_BYTES + words[base + PAYLOAD_BYTES];
      default:
        return REGISTER_BYTES + words[base + PAYLOAD_BYTES];
    }
  }
}
