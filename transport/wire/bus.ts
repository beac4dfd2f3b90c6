/**
 * Messages on the bus between an adapter and its driver (PCIe class), and their bytes.
 *
 * One table says what every message carries; encoder, decoder and `docs/WIRE.md` follow it. Inside a
 * process a message is a pool frame: word 0 is its type, its 32-bit fields stand in words 1 to 10 in
 * the order of the table, its 64-bit fields in the two doubles. Outside it is little-endian:
 *
 *     u32 type   u32 payload_bytes   u32 first   fields…   trailer
 *
 * `first` and `payload_bytes` describe the trailer. A `pages` trailer is a list of u32, one for each
 * page that the range (offset `first` in its first page, `payload_bytes` long) touches. A `data`
 * trailer is `payload_bytes` bytes. Without a trailer both are 0.
 *
 * A host's memory belongs to the host: a DMA read samples it when the request arrives there, a DMA
 * write lands when it arrives. Page numbers in messages are page frames of the host, as the driver
 * wrote them into the adapter's tables; bit 0 and 1 of a table entry are read and write permission
 * (MTT bits of mlx5).
 */
import {
  BURST,
  BURST_MAX_BYTES,
  BURST_MAX_PAGES,
  BURST_OFFSET,
  FRAME_WORDS,
  type FramePool,
  PAYLOAD_BYTES,
} from './frame-pool.ts';

// Host to adapter.
export const BUS_SEND_DOORBELL = 1;
export const BUS_RECV_DOORBELL = 2;
export const BUS_COMMAND = 3;
export const BUS_DMA_READ_DATA = 4;
export const BUS_TABLE_UPDATE = 5;
export const BUS_FAULT_RESUME = 6;
export const BUS_PD_SUSPEND = 7;
export const BUS_PD_RESUME = 8;
export const BUS_DMA_ATOMIC_DATA = 9;
export const BUS_CQ_DOORBELL = 10;
export const BUS_SRQ_DOORBELL = 11;
// Adapter to host.
export const BUS_DMA_READ = 16;
export const BUS_DMA_WRITE = 17;
export const BUS_COMPLETION = 18;
export const BUS_PAGE_FAULT = 19;
export const BUS_COMMAND_DONE = 20;
export const BUS_INTERRUPT = 21;
export const BUS_ASYNC_EVENT = 22;
export const BUS_DMA_ATOMIC = 23;
export const BUS_CQ_EVENT = 24;

type Trailer = 'none' | 'pages' | 'data';

/** One kind of message. `words` are u32 fields in order, `longs` u64 fields (integers below 2^53). */
export interface BusLayout {
  readonly type: number;
  readonly name: string;
  readonly towards: 'adapter' | 'host';
  readonly words: readonly string[];
  readonly longs: readonly string[];
  readonly trailer: Trailer;
  readonly meaning: string;
}

export const busLayouts: readonly BusLayout[] = [
  {
    type: BUS_SEND_DOORBELL,
    name: 'SEND_DOORBELL',
    towards: 'adapter',
    words: ['qpn', 'opcode', 'flags', 'wr_id', 'lkey', 'length', 'rkey', 'immediate', 'sges'],
    longs: ['local_address', 'remote_address'],
    trailer: 'data',
    meaning:
      'one work request for a send queue, written through the doorbell page (BlueFlame); its segments follow: UD address, atomic operands, inline data or, with more than one, scatter/gather entries',
  },
  {
    type: BUS_RECV_DOORBELL,
    name: 'RECV_DOORBELL',
    towards: 'adapter',
    words: ['qpn', 'wr_id', 'lkey', 'length', 'sges'],
    longs: ['local_address'],
    trailer: 'data',
    meaning: 'one work request for a receive queue; more than one scatter entry follow as segments',
  },
  {
    type: BUS_SRQ_DOORBELL,
    name: 'SRQ_DOORBELL',
    towards: 'adapter',
    words: ['srqn', 'wr_id', 'lkey', 'length', 'sges'],
    longs: ['local_address'],
    trailer: 'data',
    meaning: 'one work request for a shared receive queue; segments as in RECV_DOORBELL',
  },
  {
    type: BUS_CQ_DOORBELL,
    name: 'CQ_DOORBELL',
    towards: 'adapter',
    words: ['cqn', 'consumer_index', 'arm'],
    longs: [],
    trailer: 'none',
    meaning:
      'the host has taken entries up to consumer_index (mod 2^32) out of a completion queue; arm asks for an event with the next completion (1) or the next solicited or failed one (2)',
  },
  {
    type: BUS_COMMAND,
    name: 'COMMAND',
    towards: 'adapter',
    words: ['opcode', 'tag', 'p0', 'p1', 'p2', 'p3', 'p4', 'p5', 'p6', 'p7'],
    longs: ['q0', 'q1'],
    trailer: 'data',
    meaning: 'a command of the driver, with its mailbox; COMMAND_DONE with the same tag answers it',
  },
  {
    type: BUS_DMA_READ_DATA,
    name: 'DMA_READ_DATA',
    towards: 'adapter',
    words: ['tag'],
    longs: [],
    trailer: 'data',
    meaning: 'what a DMA_READ of that tag found in memory',
  },
  {
    type: BUS_DMA_ATOMIC_DATA,
    name: 'DMA_ATOMIC_DATA',
    towards: 'adapter',
    words: ['tag', 'original_high', 'original_low'],
    longs: [],
    trailer: 'none',
    meaning: 'what memory held before the DMA_ATOMIC of that tag',
  },
  {
    type: BUS_TABLE_UPDATE,
    name: 'TABLE_UPDATE',
    towards: 'adapter',
    words: ['tag', 'mkey', 'first_page'],
    longs: [],
    trailer: 'pages',
    meaning:
      'sets page table entries of a region from first_page on (frame << 2 | write << 1 | read; 0: not present), or those of an indirect key (keys of children; 0: null); COMMAND_DONE with the tag (unless 0) follows once no older entry is cached or in use',
  },
  {
    type: BUS_FAULT_RESUME,
    name: 'FAULT_RESUME',
    towards: 'adapter',
    words: ['token', 'status'],
    longs: [],
    trailer: 'none',
    meaning:
      'the fault with this token is served (status 0), or cannot be (1) and fails its queue pair',
  },
  {
    type: BUS_PD_SUSPEND,
    name: 'PD_SUSPEND',
    towards: 'adapter',
    words: ['tag', 'pd'],
    longs: [],
    trailer: 'none',
    meaning:
      'stops every queue pair of a protection domain; COMMAND_DONE follows once nothing of it is in flight and no translation of it is cached',
  },
  {
    type: BUS_PD_RESUME,
    name: 'PD_RESUME',
    towards: 'adapter',
    words: ['tag', 'pd'],
    longs: [],
    trailer: 'none',
    meaning: 'lets the queue pairs of a protection domain run again',
  },
  {
    type: BUS_DMA_READ,
    name: 'DMA_READ',
    towards: 'host',
    words: ['tag', 'flags', 'qpn', 'message', 'message_bytes'],
    longs: ['message_address'],
    trailer: 'pages',
    meaning:
      'asks for the bytes of a list of page frames; with flag 1 it is the last of an RDMA READ that this host answers',
  },
  {
    type: BUS_DMA_WRITE,
    name: 'DMA_WRITE',
    towards: 'host',
    words: ['page', 'offset', 'next_page', 'flags', 'qpn', 'message', 'message_bytes'],
    longs: ['message_address'],
    trailer: 'data',
    meaning:
      'bytes for page from offset on, going on at the start of next_page; with flag 1 they end the message named by the other fields',
  },
  {
    type: BUS_COMPLETION,
    name: 'COMPLETION',
    towards: 'host',
    words: [
      'cqn',
      'qpn',
      'wr_id',
      'status',
      'opcode',
      'byte_len',
      'immediate',
      'flags',
      'src_qp',
      'slid',
    ],
    longs: [],
    trailer: 'none',
    meaning:
      'a completion queue entry; flag 1: of the receive queue, 2: immediate is valid, 4: immediate is the rkey that was invalidated, 8: the first 40 bytes are a GRH or IP header, 16: solicited',
  },
  {
    type: BUS_PAGE_FAULT,
    name: 'PAGE_FAULT',
    towards: 'host',
    words: ['token', 'mkey', 'qpn', 'access', 'length'],
    longs: ['address'],
    trailer: 'none',
    meaning:
      'an entry of the page-fault event queue: length bytes at address of the region are not mapped for access (1 read, 2 write), + 4 when the responder met it',
  },
  {
    type: BUS_COMMAND_DONE,
    name: 'COMMAND_DONE',
    towards: 'host',
    words: ['tag', 'status', 'result'],
    longs: [],
    trailer: 'data',
    meaning: 'answers COMMAND, TABLE_UPDATE, PD_SUSPEND and PD_RESUME; status 0 is success',
  },
  {
    type: BUS_INTERRUPT,
    name: 'INTERRUPT',
    towards: 'host',
    words: ['vector'],
    longs: [],
    trailer: 'none',
    meaning:
      'an MSI-X write: entries of event queue `vector` wait (0 page faults, 1 asynchronous events, 2 completions)',
  },
  {
    type: BUS_ASYNC_EVENT,
    name: 'ASYNC_EVENT',
    towards: 'host',
    words: ['event', 'number'],
    longs: [],
    trailer: 'none',
    meaning:
      'an entry of the asynchronous event queue: an event as in verbs (IBV_EVENT_*), and the number of its queue pair, completion queue or shared receive queue',
  },
  {
    type: BUS_DMA_ATOMIC,
    name: 'DMA_ATOMIC',
    towards: 'host',
    words: [
      'tag',
      'page',
      'offset',
      'operation',
      'data_high',
      'data_low',
      'compare_high',
      'compare_low',
    ],
    longs: [],
    trailer: 'none',
    meaning:
      'a PCIe AtomicOp on the 8 bytes (little endian) at offset of page: 1 adds data, 2 puts data where compare stands; DMA_ATOMIC_DATA with the tag answers it',
  },
  {
    type: BUS_CQ_EVENT,
    name: 'CQ_EVENT',
    towards: 'host',
    words: ['cqn'],
    longs: [],
    trailer: 'none',
    meaning: 'an entry of the completion event queue: an armed completion queue has an entry',
  },
];

const layoutOf: (BusLayout | undefined)[] = [];
for (const layout of busLayouts) layoutOf[layout.type] = layout;

/** Flag of DMA_READ and DMA_WRITE: this transfer ends its message. */
export const DMA_ENDS_MESSAGE = 1;
/** With it: the message went into a receive of several entries; message_address is its wr_id. */
export const DMA_SCATTERED = 2;
/** Operations of DMA_ATOMIC. */
export const ATOMIC_ADD = 1;
export const ATOMIC_COMPARE_SWAP = 2;
/** Flags of COMPLETION. */
export const CQE_RECEIVE = 1;
export const CQE_WITH_IMMEDIATE = 2;
export const CQE_WITH_INVALIDATE = 4;
export const CQE_WITH_GRH = 8;
export const CQE_SOLICITED = 16;
/** `arm` of CQ_DOORBELL. */
export const CQ_ARM_NEXT = 1;
export const CQ_ARM_SOLICITED = 2;
/** Bits of PAGE_FAULT access, and of a page table entry. */
export const ACCESS_READ = 1;
export const ACCESS_WRITE = 2;
export const FAULT_AT_RESPONDER = 4;
/** Event queues that interrupt. */
export const VECTOR_PAGE_FAULT = 0;
export const VECTOR_ASYNC = 1;
export const VECTOR_COMPLETION = 2;

/** Segments behind a doorbell, little endian, in this order; 64-bit fields are low word first. */
export const SEGMENT_UD_BYTES = 16; // dest_qpn u32, qkey u32, dlid u32, pad u32 (every UD work request)
export const SEGMENT_ATOMIC_BYTES = 16; // compare or add u64, swap u64 (CMP_AND_SWP, FETCH_AND_ADD)
export const SEGMENT_SGE_BYTES = 16; // address u64, length u32, lkey u32; all `sges` of them if more than 1

/** Opcodes of COMMAND; the parameters stand behind each. A result is COMMAND_DONE's. */
export const CMD_ALLOC_PD = 1; // -> pd
export const CMD_DEALLOC_PD = 2; // p0 pd
export const CMD_CREATE_MKEY = 3; // p0 pd, p1 access (IBV_ACCESS_*), p2 variant, p3 MKEY_*, p4 log2 of the bytes of an indirect key's entry; q0 address, q1 length -> mkey
export const CMD_DESTROY_MKEY = 4; // p0 mkey; done once nothing of it is in use; CMD_BUSY while windows are bound to it
export const CMD_CREATE_QP = 5; // p0 pd, p1 send queue entries, p2 receive queue entries, p3 send cqn, p4 receive cqn, p5 IBV_QPT_*, p6 srqn (0: none), p7 sq_sig_all -> qpn
export const CMD_MODIFY_QP = 6; // p0 qpn, p1 attribute mask (IBV_QP_*); mailbox: QPA_WORDS u32, see QPA_*
export const CMD_DESTROY_QP = 7; // p0 qpn
export const CMD_CREATE_CQ = 8; // p0 entries -> cqn
export const CMD_DESTROY_CQ = 9; // p0 cqn; CMD_BUSY while a queue pair uses it
export const CMD_QUERY_QP = 10; // p0 qpn -> mailbox as in MODIFY_QP, with the current PSNs
export const CMD_MODIFY_CQ = 11; // p0 cqn, p1 cq_count, p2 cq_period in us: an event after so many completions or so long
export const CMD_CREATE_SRQ = 12; // p0 pd, p1 entries, p2 srq_limit (0: not armed) -> srqn
export const CMD_MODIFY_SRQ = 13; // p0 srqn, p1 srq_limit: arms EVENT_SRQ_LIMIT_REACHED once
export const CMD_DESTROY_SRQ = 14; // p0 srqn; CMD_BUSY while a queue pair uses it
export const CMD_ALLOC_MW = 15; // p0 pd (type 2 windows) -> rkey
export const CMD_DEALLOC_MW = 16; // p0 rkey
export const CMD_MODIFY_MKEY = 17; // p0 mkey of a plain key, p1 REREG_*, p2 pd, p3 access; q0 address, q1 length; CMD_BUSY while windows are bound to it
export const CMD_QUERY_DIRTY = 18; // p0 mkey of a plain key, p1 first page, p2 pages (1 to 4096) -> how many the adapter has written since they were last asked for; mailbox: a bit for each
export const CMD_SWITCH_PAGE = 19; // p0 mkey of a plain key, p1 page, p2 entry -> 1: set; 0: left as it is, because the adapter has written the page since QUERY_DIRTY, or since the last SWITCH_PAGE of it

/** Kinds of key (p3 of CMD_CREATE_MKEY). */
export const MKEY_PLAIN = 0; // its table has an entry for each page (MTT)
export const MKEY_INDIRECT = 1; // ... for each 2^p4 bytes: the key of a child, or 0, the null key (KSM)
export const MKEY_CHILD = 2; // plain, for the use of an indirect key: has no row in reports

/** Words of the mailbox of MODIFY_QP and QUERY_QP: ibv_qp_attr, in this order. */
export const QPA_STATE = 0;
export const QPA_CUR_STATE = 1;
export const QPA_PATH_MTU = 2; // IBV_MTU_* code
export const QPA_QKEY = 3;
export const QPA_RQ_PSN = 4;
export const QPA_SQ_PSN = 5;
export const QPA_DEST_QPN = 6;
export const QPA_ACCESS_FLAGS = 7;
export const QPA_PKEY_INDEX = 8;
export const QPA_EN_SQD_ASYNC_NOTIFY = 9;
export const QPA_MAX_RD_ATOMIC = 10;
export const QPA_MAX_DEST_RD_ATOMIC = 11;
export const QPA_MIN_RNR_TIMER = 12;
export const QPA_PORT = 13;
export const QPA_TIMEOUT = 14;
export const QPA_RETRY_CNT = 15;
export const QPA_RNR_RETRY = 16;
export const QPA_DLID = 17; // the address vector: in every world, a peer's port is named by its LID
export const QPA_WORDS = 18;

/** Status of COMMAND_DONE. */
export const CMD_OK = 0;
export const CMD_BAD_PARAMETER = 1;
export const CMD_BAD_RESOURCE = 2;
export const CMD_BUSY = 3;
export const CMD_BAD_OPCODE = 4;
export const CMD_NOT_SUPPORTED = 5; // the adapter is of a class that cannot do it

const HEADER_BYTES = 12;

/** Why bytes are not a bus message; negative so that they never look like a frame. */
export const BUS_TRUNCATED = -1;
export const BUS_UNKNOWN_TYPE = -2;
export const BUS_BAD_LENGTH = -3;
export const BUS_BAD_FIELD = -4;
export const busProblem: Readonly<Record<number, string>> = {
  [BUS_TRUNCATED]: 'the message ends inside its fields',
  [BUS_UNKNOWN_TYPE]: 'the message type is not in the table',
  [BUS_BAD_LENGTH]: 'the message length is not what its fields say',
  [BUS_BAD_FIELD]: 'a 64-bit field does not fit 53 bits, or a range is larger than 64 KiB',
};

/** The name of a bus message type. */
export function busName(type: number): string {
  return layoutOf[type]?.name ?? `UNKNOWN_${type}`;
}

/** The most bytes `encodeBus` writes. */
export const BUS_MAX_BYTES = HEADER_BYTES + 40 + 16 + BURST_MAX_BYTES;

/** Writes bus frame `frame` at `at`; returns its end. */
export function encodeBus(pool: FramePool, frame: number, out: Uint8Array, at: number): number {
  const view = new DataView(out.buffer, out.byteOffset, out.byteLength);
  const base = frame * FRAME_WORDS;
  const words = pool.words;
  const layout = layoutOf[words[base]] as BusLayout;
  const burst = words[base + BURST];
  const bytes = words[base + PAYLOAD_BYTES];
  view.setUint32(at, words[base], true);
  view.setUint32(at + 4, bytes, true);
  view.setUint32(at + 8, layout.trailer === 'pages' ? pool.burstFirst[burst] : 0, true);
  let to = at + HEADER_BYTES;
  for (let i = 1; i <= layout.words.length; i++, to += 4) view.setInt32(to, words[base + i], true);
  for (let i = 0; i < layout.longs.length; i++, to += 8) {
    const value = pool.doubles[frame * 2 + i];
    view.setUint32(to, value | 0, true);
    view.setUint32(to + 4, (value / 4294967296) | 0, true);
  }
  if (layout.trailer === 'pages') {
    const pages = pool.burstPages(burst);
    for (let i = 0; i < pages; i++, to += 4) {
      view.setInt32(to, pool.burstEntries[burst * BURST_MAX_PAGES + i], true);
    }
  } else if (layout.trailer === 'data' && bytes > 0) {
    pool.burstToBytes(burst, words[base + BURST_OFFSET], bytes, out, to);
    to += bytes;
  }
  return to;
}

/** Reads the bus message in `bytes` from `at` to `end`, or returns a BUS_* problem. */
export function decodeBus(pool: FramePool, bytes: Uint8Array, at: number, end: number): number {
  if (end - at < HEADER_BYTES) return BUS_TRUNCATED;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const layout = layoutOf[view.getUint32(at, true)];
  if (!layout) return BUS_UNKNOWN_TYPE;
  const payload = view.getUint32(at + 4, true);
  const first = view.getUint32(at + 8, true);
  const fields = at + HEADER_BYTES + layout.words.length * 4 + layout.longs.length * 8;
  if (fields > end) return BUS_TRUNCATED;
  if (payload > BURST_MAX_BYTES || first > 4095) return BUS_BAD_FIELD;
  const pages = layout.trailer === 'pages' ? Math.ceil((first + payload) / 4096) : 0;
  const trailer = layout.trailer === 'pages' ? pages * 4 : layout.trailer === 'data' ? payload : 0;
  if (end - fields !== trailer) return BUS_BAD_LENGTH;
  for (let i = 0; i < layout.longs.length; i++) {
    const high = view.getUint32(fields - layout.longs.length * 8 + i * 8 + 4, true);
    if (high >= 0x200000) return BUS_BAD_FIELD;
  }

  const frame = pool.allocate();
  const base = frame * FRAME_WORDS;
  const words = pool.words;
  words[base] = layout.type;
  words[base + PAYLOAD_BYTES] = layout.trailer === 'none' ? 0 : payload;
  let from = at + HEADER_BYTES;
  for (let i = 1; i <= layout.words.length; i++, from += 4) {
    words[base + i] = view.getInt32(from, true);
  }
  for (let i = 0; i < layout.longs.length; i++, from += 8) {
    pool.doubles[frame * 2 + i] =
      view.getUint32(from + 4, true) * 4294967296 + view.getUint32(from, true);
  }
  if (layout.trailer === 'pages') {
    const burst = pool.allocateBurst(first, payload);
    for (let i = 0; i < pages; i++, from += 4) {
      pool.burstEntries[burst * BURST_MAX_PAGES + i] = view.getInt32(from, true);
    }
    words[base + BURST] = burst;
  } else if (layout.trailer === 'data' && payload > 0) {
    words[base + BURST] = pool.burstFromBytes(bytes, from, payload);
  }
  return frame;
}
