/**
 * BTH opcodes: one row per packet type, and everything else about it follows from the row.
 *
 * Owns: opcode values, what each packet type is, which headers it carries and where they start.
 * Does not own: the fields of a header (`packet.ts`), or what a queue pair does about a packet.
 * Source: IBTA volume 1, table 38, as in Linux `include/rdma/ib_pack.h`.
 *
 * Rows are expanded once into typed arrays indexed by the opcode byte, so the data plane loads a
 * word and tests a bit. An unknown opcode has no flag set.
 */

export const OP_KNOWN = 1 << 0;
export const OP_REQUEST = 1 << 1;
export const OP_RESPONSE = 1 << 2;
export const OP_SEND = 1 << 3;
export const OP_WRITE = 1 << 4;
export const OP_READ = 1 << 5;
export const OP_ATOMIC = 1 << 6;
export const OP_FIRST = 1 << 7;
export const OP_LAST = 1 << 8;
export const OP_PAYLOAD = 1 << 9;
export const OP_IMMEDIATE = 1 << 10;
export const OP_INVALIDATE = 1 << 11;

const HDR_BTH = 0;
export const HDR_RETH = 1;
export const HDR_AETH = 2;
export const HDR_IMMDT = 3;
const HDR_COUNT = 4;
const headerBytes = [12, 16, 4, 4];
const HDR_ABSENT = 255;

/** OP_* flags of an opcode. */
export const opFlags = new Uint16Array(256);
/** Bytes of BTH and extension headers. */
export const opHeaderBytes = new Uint8Array(256);
const opOffset = new Uint8Array(256 * HDR_COUNT).fill(HDR_ABSENT);
/** Name of an opcode, as Linux and Wireshark spell it. */
export const opName: string[] = Array.from(
  { length: 256 },
  (_, op) => `UNKNOWN_0x${op.toString(16).padStart(2, '0')}`,
);

export const RC_SEND_FIRST = 0x00;
export const RC_SEND_MIDDLE = 0x01;
export const RC_SEND_LAST = 0x02;
export const RC_SEND_LAST_IMM = 0x03;
export const RC_SEND_ONLY = 0x04;
export const RC_SEND_ONLY_IMM = 0x05;
export const RC_WRITE_FIRST = 0x06;
export const RC_WRITE_MIDDLE = 0x07;
export const RC_WRITE_LAST = 0x08;
export const RC_WRITE_LAST_IMM = 0x09;
export const RC_WRITE_ONLY = 0x0a;
export const RC_WRITE_ONLY_IMM = 0x0b;
export const RC_READ_REQUEST = 0x0c;
export const RC_READ_RESPONSE_FIRST = 0x0d;
export const RC_READ_RESPONSE_MIDDLE = 0x0e;
export const RC_READ_RESPONSE_LAST = 0x0f;
export const RC_READ_RESPONSE_ONLY = 0x10;
export const RC_ACKNOWLEDGE = 0x11;

const ONLY = OP_FIRST | OP_LAST;
const SEND = OP_REQUEST | OP_SEND | OP_PAYLOAD;
const WRITE = OP_REQUEST | OP_WRITE | OP_PAYLOAD;
const READ_RESPONSE = OP_RESPONSE | OP_READ | OP_PAYLOAD;

row(RC_SEND_FIRST, 'RC_SEND_FIRST', SEND | OP_FIRST, []);
row(RC_SEND_MIDDLE, 'RC_SEND_MIDDLE', SEND, []);
row(RC_SEND_LAST, 'RC_SEND_LAST', SEND | OP_LAST, []);
row(RC_SEND_LAST_IMM, 'RC_SEND_LAST_IMM', SEND | OP_LAST | OP_IMMEDIATE, [HDR_IMMDT]);
row(RC_SEND_ONLY, 'RC_SEND_ONLY', SEND | ONLY, []);
row(RC_SEND_ONLY_IMM, 'RC_SEND_ONLY_IMM', SEND | ONLY | OP_IMMEDIATE, [HDR_IMMDT]);
row(RC_WRITE_FIRST, 'RC_RDMA_WRITE_FIRST', WRITE | OP_FIRST, [HDR_RETH]);
row(RC_WRITE_MIDDLE, 'RC_RDMA_WRITE_MIDDLE', WRITE, []);
row(RC_WRITE_LAST, 'RC_RDMA_WRITE_LAST', WRITE | OP_LAST, []);
row(RC_WRITE_LAST_IMM, 'RC_RDMA_WRITE_LAST_IMM', WRITE | OP_LAST | OP_IMMEDIATE, [HDR_IMMDT]);
row(RC_WRITE_ONLY, 'RC_RDMA_WRITE_ONLY', WRITE | ONLY, [HDR_RETH]);
row(RC_WRITE_ONLY_IMM, 'RC_RDMA_WRITE_ONLY_IMM', WRITE | ONLY | OP_IMMEDIATE, [
  HDR_RETH,
  HDR_IMMDT,
]);
row(RC_READ_REQUEST, 'RC_RDMA_READ_REQUEST', OP_REQUEST | OP_READ | ONLY, [HDR_RETH]);
row(RC_READ_RESPONSE_FIRST, 'RC_RDMA_READ_RESPONSE_FIRST', READ_RESPONSE | OP_FIRST, [HDR_AETH]);
row(RC_READ_RESPONSE_MIDDLE, 'RC_RDMA_READ_RESPONSE_MIDDLE', READ_RESPONSE, []);
row(RC_READ_RESPONSE_LAST, 'RC_RDMA_READ_RESPONSE_LAST', READ_RESPONSE | OP_LAST, [HDR_AETH]);
row(RC_READ_RESPONSE_ONLY, 'RC_RDMA_READ_RESPONSE_ONLY', READ_RESPONSE | ONLY, [HDR_AETH]);
row(RC_ACKNOWLEDGE, 'RC_ACKNOWLEDGE', OP_RESPONSE | ONLY, [HDR_AETH]);

/** Where `header` starts behind the start of the BTH, or -1 where this opcode has none. */
export function headerOffset(opcode: number, header: number): number {
  const at = opOffset[opcode * HDR_COUNT + header];
  return at === HDR_ABSENT ? -1 : at;
}

/** Lengths and offsets are summed from the header list, so a row cannot contradict itself. */
function row(op: number, name: string, flags: number, headers: readonly number[]): void {
  if (opFlags[op] !== 0) throw new Error(`opcode 0x${op.toString(16)} is defined twice`);
  let at = 0;
  for (const header of [HDR_BTH, ...headers]) {
    opOffset[op * HDR_COUNT + header] = at;
    at += headerBytes[header];
  }
  opFlags[op] = flags | OP_KNOWN;
  opHeaderBytes[op] = at;
  opName[op] = name;
}
