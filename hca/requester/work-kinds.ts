/**
 * Work requests of a send queue: one row per operation, and everything the requester asks about one
 * follows from the row.
 *
 * Which services an operation is for: IBTA volume 1, table of 11.4.1.1, as Linux rxe has it in
 * rxe_opcode.c. SEND with invalidate is for RC alone, because UC has no such packets.
 */
import {
  QPT_RC,
  QPT_UC,
  QPT_UD,
  RC_ATOMIC_WRITE,
  RC_COMPARE_SWAP,
  RC_FETCH_ADD,
  RC_FLUSH,
  RC_READ_REQUEST,
  RC_SEND_FIRST,
  RC_SEND_LAST,
  RC_SEND_LAST_IMM,
  RC_SEND_LAST_INV,
  RC_SEND_MIDDLE,
  RC_SEND_ONLY,
  RC_SEND_ONLY_IMM,
  RC_SEND_ONLY_INV,
  RC_WRITE_FIRST,
  RC_WRITE_LAST,
  RC_WRITE_LAST_IMM,
  RC_WRITE_MIDDLE,
  RC_WRITE_ONLY,
  RC_WRITE_ONLY_IMM,
  SERVICE_RC,
  SERVICE_UC,
  SERVICE_UD,
  WC_ATOMIC_WRITE,
  WC_BIND_MW,
  WC_COMP_SWAP,
  WC_FETCH_ADD,
  WC_FLUSH,
  WC_LOCAL_INV,
  WC_RDMA_READ,
  WC_RDMA_WRITE,
  WC_SEND,
  WR_ATOMIC_CMP_AND_SWP,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_ATOMIC_WRITE,
  WR_BIND_MW,
  WR_FLUSH,
  WR_LOCAL_INV,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
  WR_SEND_WITH_IMM,
  WR_SEND_WITH_INV,
} from '../../transport/index.ts';

/** Its packets carry bytes of local memory, or inline ones. */
export const WORK_DATA = 1 << 0;
/** Only an answer of its own completes it; such work counts against max_rd_atomic. */
export const WORK_ANSWER = 1 << 1;
/** The answer is written to local memory. */
export const WORK_RESULT = 1 << 2;
/** Done inside the adapter; no packet is sent. */
export const WORK_LOCAL = 1 << 3;
/** Its first packet names a range of the peer's memory (RETH). */
export const WORK_RETH = 1 << 4;
/** Compare-and-swap or fetch-and-add: operands instead of data, eight bytes of result. */
export const WORK_ATOMIC = 1 << 5;
/** Takes a receive at the peer, so that end-to-end credits limit it. */
export const WORK_RECEIVE = 1 << 6;
/** Its last packet carries W_IMMEDIATE: immediate data, a key to invalidate, or the FETH. */
export const WORK_IMMEDIATE = 1 << 7;
/** Set at the posted work request alone: its data came with it. */
export const WORK_INLINE = 1 << 8;

const OPERATIONS = 16;
/** WORK_* of each operation; 0 where there is none. */
export const workFlags = new Uint16Array(OPERATIONS);
/** IBV_WC_* opcode of its completion. */
export const workCompletion = new Uint8Array(OPERATIONS);
const workServices = new Uint8Array(OPERATIONS);
/** BTH opcodes of its packets: first, middle, last, only. */
const packetOpcodes = new Uint8Array(OPERATIONS * 4);

const CONNECTED = (1 << QPT_RC) | (1 << QPT_UC);
const EVERY = CONNECTED | (1 << QPT_UD);
const RELIABLE = 1 << QPT_RC;

const WRITE = [RC_WRITE_FIRST, RC_WRITE_MIDDLE];
const SEND = [RC_SEND_FIRST, RC_SEND_MIDDLE];
const RANGE = WORK_ANSWER | WORK_RETH;
const ATOMIC = WORK_ANSWER | WORK_RESULT | WORK_ATOMIC;
const SENDS = WORK_DATA | WORK_RECEIVE;

row(WR_RDMA_WRITE, CONNECTED, WC_RDMA_WRITE, WORK_DATA | WORK_RETH, [
  ...WRITE,
  RC_WRITE_LAST,
  RC_WRITE_ONLY,
]);
row(WR_RDMA_WRITE_WITH_IMM, CONNECTED, WC_RDMA_WRITE, SENDS | WORK_RETH | WORK_IMMEDIATE, [
  ...WRITE,
  RC_WRITE_LAST_IMM,
  RC_WRITE_ONLY_IMM,
]);
row(WR_SEND, EVERY, WC_SEND, SENDS, [...SEND, RC_SEND_LAST, RC_SEND_ONLY]);
row(WR_SEND_WITH_IMM, EVERY, WC_SEND, SENDS | WORK_IMMEDIATE, [
  ...SEND,
  RC_SEND_LAST_IMM,
  RC_SEND_ONLY_IMM,
]);
row(WR_SEND_WITH_INV, RELIABLE, WC_SEND, SENDS | WORK_IMMEDIATE, [
  ...SEND,
  RC_SEND_LAST_INV,
  RC_SEND_ONLY_INV,
]);
row(WR_RDMA_READ, RELIABLE, WC_RDMA_READ, RANGE | WORK_RESULT, [0, 0, 0, RC_READ_REQUEST]);
row(WR_ATOMIC_CMP_AND_SWP, RELIABLE, WC_COMP_SWAP, ATOMIC, [0, 0, 0, RC_COMPARE_SWAP]);
row(WR_ATOMIC_FETCH_AND_ADD, RELIABLE, WC_FETCH_ADD, ATOMIC, [0, 0, 0, RC_FETCH_ADD]);
row(WR_FLUSH, RELIABLE, WC_FLUSH, RANGE | WORK_IMMEDIATE, [0, 0, 0, RC_FLUSH]);
row(WR_ATOMIC_WRITE, RELIABLE, WC_ATOMIC_WRITE, RANGE | WORK_DATA, [0, 0, 0, RC_ATOMIC_WRITE]);
row(WR_LOCAL_INV, CONNECTED, WC_LOCAL_INV, WORK_LOCAL, [0, 0, 0, 0]);
row(WR_BIND_MW, CONNECTED, WC_BIND_MW, WORK_LOCAL, [0, 0, 0, 0]);

/** Whether a queue pair of `type` can do `operation`. */
export function isOperationOf(operation: number, type: number): boolean {
  return operation >= 0 && operation < OPERATIONS && ((workServices[operation] >> type) & 1) !== 0;
}

/** The BTH opcode of a packet of `operation` of a queue pair whose service bits are `service`. */
export function packetOpcode(
  operation: number,
  service: number,
  isFirst: boolean,
  isLast: boolean,
): number {
  const place = isFirst ? (isLast ? 3 : 0) : isLast ? 2 : 1;
  return packetOpcodes[operation * 4 + place] | service;
}

/** The three high bits of the opcodes of a service. */
export function serviceOf(type: number): number {
  return type === QPT_RC ? SERVICE_RC : type === QPT_UC ? SERVICE_UC : SERVICE_UD;
}

function row(
  operation: number,
  services: number,
  completion: number,
  flags: number,
  packets: readonly number[],
): void {
  workServices[operation] = services;
  workCompletion[operation] = completion;
  workFlags[operation] = flags;
  packetOpcodes.set(packets, operation * 4);
}
