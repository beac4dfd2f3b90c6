/**
 * A captured packet: what the codec read of one RoCEv2 frame, kept outside the pool.
 *
 * Owns reading it out of the pool and putting it back, and how two packets differ. What the fields
 * mean for a queue pair is not known here.
 */

import { AETH_ACK, AETH_KIND, AETH_NAK, AETH_RNR_NAK } from '../../hca/index.ts';
import {
  BTH_ACK_REQUEST,
  BTH_SOLICITED,
  BTH_WITH_GRH,
  BURST,
  BURST_OFFSET,
  FRAME_WORDS,
  type FramePool,
  GRH_BYTES,
  HDR_AETH,
  HDR_ATOMICACKETH,
  HDR_ATOMICETH,
  HDR_DETH,
  HDR_FETH,
  HDR_IETH,
  HDR_IMMDT,
  HDR_RETH,
  headerOffset,
  OP_LAST,
  OP_READ,
  OP_REQUEST,
  OP_RESPONSE,
  opFlags,
  opName,
  PAYLOAD_BYTES,
  RC_ACKNOWLEDGE,
  SERVICE_MASK,
  W_AETH,
  W_BTH_FLAGS,
  W_COMPARE_HIGH,
  W_COMPARE_LOW,
  W_DEST_QPN,
  W_DMA_BYTES,
  W_IMMEDIATE,
  W_OPCODE,
  W_ORIGINAL_HIGH,
  W_ORIGINAL_LOW,
  W_PKEY,
  W_PSN,
  W_QKEY,
  W_RKEY,
  W_SOURCE_QPN,
  W_SWAP_HIGH,
  W_SWAP_LOW,
} from '../../transport/index.ts';

/** Packets that a message of `bytes` takes. */
export function packetsOf(bytes: number, mtu: number): number {
  return Math.max(1, Math.ceil(bytes / mtu));
}

export class Packet {
  constructor(
    /** Words of its pool frame; the local ones are 0. */
    readonly words: Int32Array,
    /** The two doubles of its pool frame: a remote address. */
    readonly doubles: readonly [number, number],
    readonly payload: Uint8Array,
  ) {}

  /** Reads wire frame `frame`, which the caller keeps. */
  static read(pool: FramePool, frame: number): Packet {
    const base = frame * FRAME_WORDS;
    const words = pool.words.slice(base, base + FRAME_WORDS);
    const payload = new Uint8Array(words[PAYLOAD_BYTES]);
    if (payload.length > 0) {
      pool.burstToBytes(words[BURST], words[BURST_OFFSET], payload.length, payload, 0);
    }
    words.fill(0, BURST);
    return new Packet(words, [pool.doubles[frame * 2], pool.doubles[frame * 2 + 1]], payload);
  }

  /** A fresh wire frame with this packet. */
  write(pool: FramePool): number {
    const frame = pool.allocate();
    const base = frame * FRAME_WORDS;
    pool.words.set(this.words, base);
    pool.words[base + PAYLOAD_BYTES] = this.payload.length;
    pool.doubles[frame * 2] = this.doubles[0];
    pool.doubles[frame * 2 + 1] = this.doubles[1];
    if (this.payload.length > 0) {
      pool.words[base + BURST] = pool.burstFromBytes(this.payload, 0, this.payload.length);
    }
    return frame;
  }

  /** The same packet with other words. */
  with(changes: Readonly<Record<number, number>>): Packet {
    const words = this.words.slice();
    for (const [word, value] of Object.entries(changes)) words[Number(word)] = value;
    return new Packet(words, this.doubles, this.payload);
  }

  /** The same packet to another remote address. */
  at(address: number): Packet {
    return new Packet(this.words, [address, 0], this.payload);
  }

  get opcode(): number {
    return this.words[W_OPCODE] & 0xff;
  }

  get flags(): number {
    return opFlags[this.opcode];
  }

  get service(): number {
    return this.opcode & SERVICE_MASK;
  }

  /** What is not known to be a response asks for something. */
  get isResponse(): boolean {
    return (this.flags & OP_RESPONSE) !== 0;
  }

  get destQpn(): number {
    return this.words[W_DEST_QPN];
  }

  get psn(): number {
    return this.words[W_PSN];
  }

  get address(): number {
    return this.doubles[0];
  }

  get rkey(): number {
    return this.words[W_RKEY] >>> 0;
  }

  get dmaBytes(): number {
    return this.words[W_DMA_BYTES] >>> 0;
  }

  get immediate(): number {
    return this.words[W_IMMEDIATE] >>> 0;
  }

  get sourceQpn(): number {
    return this.words[W_SOURCE_QPN];
  }

  get asksForAck(): boolean {
    return (this.words[W_BTH_FLAGS] & BTH_ACK_REQUEST) !== 0;
  }

  /** What it carries: its payload, without the GRH area of a datagram that was received. */
  get data(): Uint8Array {
    return this.payload.subarray(this.words[W_BTH_FLAGS] & BTH_WITH_GRH ? GRH_BYTES : 0);
  }

  /** Whether the header stands in this packet. */
  has(header: number): boolean {
    return headerOffset(this.opcode, header) >= 0;
  }

  get syndrome(): number {
    return (this.words[W_AETH] >>> 24) & 0xff;
  }

  get msn(): number {
    return this.words[W_AETH] & 0xffffff;
  }

  get isAck(): boolean {
    return this.opcode === RC_ACKNOWLEDGE && (this.syndrome & AETH_KIND) === AETH_ACK;
  }

  get isNak(): boolean {
    return this.opcode === RC_ACKNOWLEDGE && (this.syndrome & AETH_KIND) === AETH_NAK;
  }

  /** Code of a NAK, timer of an RNR NAK, credits of an ACK. */
  get syndromeValue(): number {
    return this.syndrome & 31;
  }

  get isRnrNak(): boolean {
    return this.opcode === RC_ACKNOWLEDGE && (this.syndrome & AETH_KIND) === AETH_RNR_NAK;
  }

  /** PSNs that a request takes: a READ takes those of its response. */
  span(mtu: number): number {
    const flags = this.flags;
    const isRead = (flags & (OP_REQUEST | OP_READ)) === (OP_REQUEST | OP_READ);
    return isRead ? packetsOf(this.dmaBytes, mtu) : 1;
  }

  get isLast(): boolean {
    return (this.flags & OP_LAST) !== 0;
  }

  /** For people: what it is and where it stands. */
  describe(): string {
    const psn = this.psn.toString(16).padStart(6, '0');
    return `${opName[this.opcode]} PSN ${psn}${this.has(HDR_AETH) ? ` ${this.describeAeth()}` : ''}`;
  }

  private describeAeth(): string {
    const value = this.syndromeValue;
    const type = this.syndrome & AETH_KIND;
    const name = type === AETH_RNR_NAK ? 'RNR NAK' : type === AETH_NAK ? 'NAK' : 'ACK';
    return `${name}(${value}) MSN ${this.msn}`;
  }
}

/** Where two packets differ: the field, and both values as text. */
export interface FieldDifference {
  readonly field: string;
  readonly ours: string;
  readonly theirs: string;
}

/** Fields that a packet with a header has, and the mask of what counts. */
const fieldsOf: readonly (readonly [header: number, field: string, word: number])[] = [
  [HDR_RETH, 'rkey', W_RKEY],
  [HDR_RETH, 'DMA length', W_DMA_BYTES],
  [HDR_ATOMICETH, 'rkey', W_RKEY],
  [HDR_ATOMICETH, 'swap or add (high)', W_SWAP_HIGH],
  [HDR_ATOMICETH, 'swap or add (low)', W_SWAP_LOW],
  [HDR_ATOMICETH, 'compare (high)', W_COMPARE_HIGH],
  [HDR_ATOMICETH, 'compare (low)', W_COMPARE_LOW],
  [HDR_ATOMICACKETH, 'original (high)', W_ORIGINAL_HIGH],
  [HDR_ATOMICACKETH, 'original (low)', W_ORIGINAL_LOW],
  [HDR_DETH, 'Q_Key', W_QKEY],
  [HDR_DETH, 'source QPN', W_SOURCE_QPN],
  [HDR_IMMDT, 'immediate', W_IMMEDIATE],
  [HDR_IETH, 'invalidated rkey', W_IMMEDIATE],
  [HDR_FETH, 'FETH', W_IMMEDIATE],
];

/**
 * The first field in which `ours` departs from the captured `theirs`. The AckReq bit is not
 * compared: when to ask for an ACK is the requester's choice (it is asked for at the end of a
 * message, and more often if it likes).
 */
export function differenceOf(ours: Packet, theirs: Packet): FieldDifference | undefined {
  const differ = (field: string, a: string, b: string): FieldDifference => ({
    field,
    ours: a,
    theirs: b,
  });
  const hex = (value: number): string => `0x${(value >>> 0).toString(16)}`;
  if (ours.opcode !== theirs.opcode) {
    return differ('opcode', opName[ours.opcode], opName[theirs.opcode]);
  }
  for (const [field, word] of [
    ['destination QPN', W_DEST_QPN],
    ['PSN', W_PSN],
    ['P_Key', W_PKEY],
  ] as const) {
    if (ours.words[word] !== theirs.words[word]) {
      return differ(field, hex(ours.words[word]), hex(theirs.words[word]));
    }
  }
  const solicited = (packet: Packet): string =>
    (packet.words[W_BTH_FLAGS] & BTH_SOLICITED) !== 0 ? 'set' : 'clear';
  if (solicited(ours) !== solicited(theirs)) {
    return differ('solicited event', solicited(ours), solicited(theirs));
  }
  if (ours.has(HDR_AETH)) {
    if (ours.syndrome !== theirs.syndrome) {
      return differ('syndrome', hex(ours.syndrome), hex(theirs.syndrome));
    }
    if (ours.msn !== theirs.msn) return differ('MSN', `${ours.msn}`, `${theirs.msn}`);
  }
  if (ours.has(HDR_RETH) || ours.has(HDR_ATOMICETH)) {
    if (ours.doubles[0] !== theirs.doubles[0] || ours.doubles[1] !== theirs.doubles[1]) {
      return differ('remote address', hex64(ours.address), hex64(theirs.address));
    }
  }
  for (const [header, field, word] of fieldsOf) {
    if (ours.has(header) && ours.words[word] !== theirs.words[word]) {
      return differ(field, hex(ours.words[word]), hex(theirs.words[word]));
    }
  }
  const here = ours.data;
  const there = theirs.data;
  if (here.length !== there.length) {
    return differ('payload length', `${here.length}`, `${there.length}`);
  }
  const at = here.findIndex((byte, i) => byte !== there[i]);
  if (at < 0) return undefined;
  return differ(`payload byte ${at}`, hex(here[at]), hex(there[at]));
}

function hex64(value: number): string {
  return `0x${value.toString(16)}`;
}
