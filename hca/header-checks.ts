/**
 * The checks of an arriving packet that do not depend on its operation: transport version, service,
 * addresses, partition (IBTA 9.6.1). A packet that fails one is dropped without an answer.
 */
import {
  BTH_TVER_SHIFT,
  FRAME_WORDS,
  type FramePool,
  OP_ANNOUNCE,
  OP_CNP,
  PKEY_DEFAULT,
  QPT_UD,
  SERVICE_MASK,
  W_BTH_FLAGS,
  W_LIDS,
  W_OPCODE,
  W_PKEY,
} from '../transport/index.ts';
import type { PortAttributes } from './config.ts';
import { C } from './counters.ts';
import type { QueuePair } from './qp/queue-pair.ts';

/** Transport header version: 0 is the only one there is. */
const VERSION_MASK = 0xf << BTH_TVER_SHIFT;

export class HeaderChecks {
  constructor(
    private readonly pool: FramePool,
    private readonly port: PortAttributes,
    private readonly counters: Float64Array,
  ) {}

  /** Whether `qp`, which the packet names, may look at it; `flags` are those of its opcode. */
  pass(qp: QueuePair, frame: number, flags: number): boolean {
    const words = this.pool.words;
    const base = frame * FRAME_WORDS;
    const isPlain =
      words[base + W_LIDS] === qp.peerLids &&
      words[base + W_PKEY] === PKEY_DEFAULT &&
      qp.pkey === PKEY_DEFAULT &&
      (words[base + W_BTH_FLAGS] & VERSION_MASK) === 0 &&
      (words[base + W_OPCODE] & SERVICE_MASK) === qp.service;
    return isPlain || this.judge(qp, base, flags);
  }

  /** The same, one by one, for a packet that is not what nearly all are. */
  private judge(qp: QueuePair, base: number, flags: number): boolean {
    const { counters, port } = this;
    const words = this.pool.words;
    const lids = words[base + W_LIDS];
    const isVersion = (words[base + W_BTH_FLAGS] & VERSION_MASK) === 0;
    // Of a queue pair that is not connected yet, the source is anyone.
    const isConnected = qp.type !== QPT_UD && qp.attributes.destLid !== 0;
    const isSource = !isConnected || lids >>> 16 === qp.attributes.destLid;
    const isService = this.isService(qp, words[base + W_OPCODE], flags);
    if (!isVersion || !isService || !isSource || (lids & 0xffff) !== port.lid) {
      counters[C.header_drops]++;
      return false;
    }
    if (!isSamePartition(words[base + W_PKEY], qp.pkey)) {
      counters[C.bad_pkey_cntr]++;
      return false;
    }
    return true;
  }

  /** Whether an opcode, known or not, is for a queue pair of this service. */
  private isService(qp: QueuePair, opcode: number, flags: number): boolean {
    if ((opcode & SERVICE_MASK) === qp.service) return true;
    if ((flags & OP_ANNOUNCE) !== 0) return this.port.announcesSuspend && qp.type !== QPT_UD;
    return (flags & OP_CNP) !== 0;
  }
}

/** Whether two P_Keys match: same partition, and one of them at least a full member (IBTA 10.9.3). */
function isSamePartition(a: number, b: number): boolean {
  return ((a ^ b) & 0x7fff) === 0 && (a & 0x7fff) !== 0 && ((a | b) & 0x8000) !== 0;
}
