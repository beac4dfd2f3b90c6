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
// Adapter to host.
export const BUS_DMA_READ = 16;
export const BUS_DMA_WRITE = 17;
export const BUS_COMPLETION = 18;
export const BUS_PAGE_FAULT = 19;
export const BUS_COMMAND_DONE = 20;
export const BUS_INTERRUPT = 21;
export const BUS_ASYNC_EVENT = 22;

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
    words: ['qpn', 'opcode', 'flags', 'wr_id', 'lkey', 'length', 'rkey', 'immediate'],
    longs: ['local_address', 'remote_address'],
    trailer: 'none',
    meaning: 'one work request for a send queue, written through the doorbell page (BlueFlame)',
  },
  {
    type: BUS_RECV_DOORBELL,
    name: 'RECV_DOORBELL',
    towards: 'adapter',
    words: ['qpn', 'wr_id', 'lkey', 'length'],
    longs: ['local_address'],
    trailer: 'none',
    meaning: 'one work request for a receive queue',
  },
  {
    type: BUS_COMMAND,
    name: 'COMMAND',
    towards: 'adapter',
    words: ['opcode', 'tag', 'p0', 'p1', 'p2', 'p3', 'p4', 'p5', 'p6', 'p7'],
    longs: ['q0', 'q1'],
    trailer: 'none',
    meaning: 'a command of the driver; COMMAND_DONE with the same tag answers it',
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
    type: BUS_TABLE_UPDATE,
    name: 'TABLE_UPDATE',
    towards: 'adapter',
    words: ['tag', 'mkey', 'first_page'],
    longs: [],
    trailer: 'pages',
    meaning:
      'sets page table entries of a region from first_page on (frame << 2 | write << 1 | read; 0: not present); COMMAND_DONE with the tag (unless 0) follows once no older entry is cached or in use',
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
    words: ['cqn', 'qpn', 'wr_id', 'status', 'opcode', 'byte_len', 'immediate', 'flags'],
    longs: [],
    trailer: 'none',
    meaning:
      'a completion queue entry; flag 1: of the receive queue, flag 2: immediate data is valid',
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
    trailer: 'none',
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
      'an MSI-X write: entries of event queue `vector` wait (0 page faults, 1 asynchronous events)',
  },
  {
    type: BUS_ASYNC_EVENT,
    name: 'ASYNC_EVENT',
    towards: 'host',
    words: ['event', 'qpn'],
    longs: [],
    trailer: 'none',
    meaning: 'an entry of the asynchronous event queue; event numbers as in verbs (IBV_EVENT_*)',
  },
];

const layoutOf: (BusLayout | undefined)[] = [];
for (const layout of busLayouts) layoutOf[layout.type] = layout;

/** Flag of DMA_READ and DMA_WRITE: this transfer ends its message. */
export const DMA_ENDS_MESSAGE = 1;
/** Flags of COMPLETION. */
export const CQE_RECEIVE = 1;
export const CQE_WITH_IMMEDIATE = 2;
/** Bits of PAGE_FAULT access, and of a page table entry. */
export const ACCESS_READ = 1;
export const ACCESS_WRITE = 2;
export const FAULT_AT_RESPONDER = 4;
/** Event queues that interrupt. */
export const VECTOR_PAGE_FAULT = 0;
export const VECTOR_ASYNC = 1;

/** Opcodes of COMMAND; the parameters stand behind each. A result is COMMAND_DONE's. */
export const CMD_ALLOC_PD = 1; // -> pd
export const CMD_DEALLOC_PD = 2; // p0 pd
export const CMD_CREATE_MKEY = 3; // p0 pd, p1 access (IBV_ACCESS_*), p2 variant; q0 address, q1 length -> mkey
export const CMD_DESTROY_MKEY = 4; // p0 mkey; done once nothing of it is in use
export const CMD_CREATE_QP = 5; // p0 pd, p1 send queue entries, p2 receive queue entries, p3 send cqn, p4 receive cqn -> qpn
export const CMD_MODIFY_QP = 6; // p0 qpn, p1 state, p2 dest_qpn << 8 | path MTU code, p3 first PSN to send, p4 first PSN expected, p5 timeout << 24 | retry_cnt << 16 | rnr_retry << 8 | min_rnr_timer, p6 dest LID, p7 max_rd_atomic << 8 | access flags
export const CMD_DESTROY_QP = 7; // p0 qpn
export const CMD_CREATE_CQ = 8; // p0 entries -> cqn
export const CMD_DESTROY_CQ = 9; // p0 cqn

/** Status of COMMAND_DONE. */
export const CMD_OK = 0;
export const CMD_BAD_PARAMETER = 1;
export const CMD_BAD_RESOURCE = 2;
export const CMD_BUSY = 3;
export const CMD_BAD_OPCODE = 4;

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
