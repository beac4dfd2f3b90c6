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
export const OP_FLUSH = 1 << 12;
export const OP_ATOMIC_WRITE = 1 << 13;
export const OP_CNP = 1 << 14;
/** Manufacturer opcodes of ours: a protection domain is suspended, or runs again. */
export const OP_ANNOUNCE = 1 << 15;

/** The service of an opcode: its three high bits (IBTA 9.2.1). */
export const SERVICE_RC = 0x00;
export const SERVICE_UC = 0x20;
export const SERVICE_RD = 0x40;
export const SERVICE_UD = 0x60;
export const SERVICE_CNP = 0x80;
export const SERVICE_MASK = 0xe0;

const HDR_BTH = 0;
export const HDR_RETH = 1;
export const HDR_AETH = 2;
export const HDR_IMMDT = 3;
/** Invalidate extended transport header: the rkey to invalidate; shares W_IMMEDIATE with ImmDt. */
export const HDR_IETH = 4;
export const HDR_ATOMICETH = 5;
export const HDR_ATOMICACKETH = 6;
export const HDR_DETH = 7;
/** Flush extended transport header: placement type and selectivity level. */
export const HDR_FETH = 8;
/** The 16 reserved bytes of a congestion notification packet. */
export const HDR_CNP = 9;
const HDR_COUNT = 10;
const headerBytes = [12, 16, 4, 4, 4, 28, 8, 8, 4, 16];
const HDR_ABSENT = 255;

/** OP_* flags of an opcode. */
export const opFlags = new Uint32Array(256);
/** Bytes of BTH and extension headers; of an unknown opcode, of the BTH alone. */
export const opHeaderBytes = new Uint8Array(256).fill(headerBytes[HDR_BTH]);
/** Extension headers of an opcode: bit HDR_* for each. */
export const opHeaders = new Uint16Array(256);
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
export const RC_ATOMIC_ACKNOWLEDGE = 0x12;
export const RC_COMPARE_SWAP = 0x13;
export const RC_FETCH_ADD = 0x14;
export const RC_SEND_LAST_INV = 0x16;
export const RC_SEND_ONLY_INV = 0x17;
export const RC_FLUSH = 0x1c;
export const RC_ATOMIC_WRITE = 0x1d;
export const UC_SEND_FIRST = 0x20;
export const UC_SEND_MIDDLE = 0x21;
export const UC_SEND_LAST = 0x22;
export const UC_SEND_LAST_IMM = 0x23;
export const UC_SEND_ONLY = 0x24;
export const UC_SEND_ONLY_IMM = 0x25;
export const UC_WRITE_FIRST = 0x26;
export const UC_WRITE_MIDDLE = 0x27;
export const UC_WRITE_LAST = 0x28;
export const UC_WRITE_LAST_IMM = 0x29;
export const UC_WRITE_ONLY = 0x2a;
export const UC_WRITE_ONLY_IMM = 0x2b;
export const UD_SEND_ONLY = 0x64;
export const UD_SEND_ONLY_IMM = 0x65;
/** Congestion notification: native InfiniBand (IBTA 1.3 table 38), and RoCEv2 (annex A17.9). */
export const CNP_INFINIBAND = 0x80;
export const CNP_ROCE = 0x81;
/** Manufacturer opcodes (IBTA table 38 leaves 0xc0 to 0xff to them): the announced PD suspend. */
export const ANNOUNCE_PD_SUSPEND = 0xe0;
export const ANNOUNCE_PD_RESUME = 0xe1;

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
row(RC_ATOMIC_ACKNOWLEDGE, 'RC_ATOMIC_ACKNOWLEDGE', OP_RESPONSE | OP_ATOMIC | ONLY, [
  HDR_AETH,
  HDR_ATOMICACKETH,
]);
row(RC_COMPARE_SWAP, 'RC_COMPARE_SWAP', OP_REQUEST | OP_ATOMIC | ONLY, [HDR_ATOMICETH]);
row(RC_FETCH_ADD, 'RC_FETCH_ADD', OP_REQUEST | OP_ATOMIC | ONLY, [HDR_ATOMICETH]);
row(RC_SEND_LAST_INV, 'RC_SEND_LAST_INV', SEND | OP_LAST | OP_INVALIDATE, [HDR_IETH]);
row(RC_SEND_ONLY_INV, 'RC_SEND_ONLY_INV', SEND | ONLY | OP_INVALIDATE, [HDR_IETH]);
row(RC_FLUSH, 'RC_FLUSH', OP_REQUEST | OP_FLUSH | ONLY, [HDR_FETH, HDR_RETH]);
row(RC_ATOMIC_WRITE, 'RC_ATOMIC_WRITE', OP_REQUEST | OP_ATOMIC_WRITE | OP_PAYLOAD | ONLY, [
  HDR_RETH,
]);
row(UC_SEND_FIRST, 'UC_SEND_FIRST', SEND | OP_FIRST, []);
row(UC_SEND_MIDDLE, 'UC_SEND_MIDDLE', SEND, []);
row(UC_SEND_LAST, 'UC_SEND_LAST', SEND | OP_LAST, []);
row(UC_SEND_LAST_IMM, 'UC_SEND_LAST_IMM', SEND | OP_LAST | OP_IMMEDIATE, [HDR_IMMDT]);
row(UC_SEND_ONLY, 'UC_SEND_ONLY', SEND | ONLY, []);
row(UC_SEND_ONLY_IMM, 'UC_SEND_ONLY_IMM', SEND | ONLY | OP_IMMEDIATE, [HDR_IMMDT]);
row(UC_WRITE_FIRST, 'UC_RDMA_WRITE_FIRST', WRITE | OP_FIRST, [HDR_RETH]);
row(UC_WRITE_MIDDLE, 'UC_RDMA_WRITE_MIDDLE', WRITE, []);
row(UC_WRITE_LAST, 'UC_RDMA_WRITE_LAST', WRITE | OP_LAST, []);
row(UC_WRITE_LAST_IMM, 'UC_RDMA_WRITE_LAST_IMM', WRITE | OP_LAST | OP_IMMEDIATE, [HDR_IMMDT]);
row(UC_WRITE_ONLY, 'UC_RDMA_WRITE_ONLY', WRITE | ONLY, [HDR_RETH]);
row(UC_WRITE_ONLY_IMM, 'UC_RDMA_WRITE_ONLY_IMM', WRITE | ONLY | OP_IMMEDIATE, [
  HDR_RETH,
  HDR_IMMDT,
]);
row(UD_SEND_ONLY, 'UD_SEND_ONLY', SEND | ONLY, [HDR_DETH]);
row(UD_SEND_ONLY_IMM, 'UD_SEND_ONLY_IMM', SEND | ONLY | OP_IMMEDIATE, [HDR_DETH, HDR_IMMDT]);
row(CNP_INFINIBAND, 'CNP_INFINIBAND', OP_CNP | ONLY, [HDR_CNP]);
row(CNP_ROCE, 'CNP', OP_CNP | ONLY, [HDR_CNP]);
row(ANNOUNCE_PD_SUSPEND, 'ANNOUNCE_PD_SUSPEND', OP_ANNOUNCE | ONLY, []);
row(ANNOUNCE_PD_RESUME, 'ANNOUNCE_PD_RESUME', OP_ANNOUNCE | ONLY, []);

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
    if (header !== HDR_BTH) opHeaders[op] |= 1 << header;
  }
  opFlags[op] = flags | OP_KNOWN;
  opHeaderBytes[op] = at;
  opName[op] = name;
}
