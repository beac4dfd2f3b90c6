/**
 * Packets for the fuzzer, as frames: in sequence and by the grammar of each service, answers to what
 * the adapter has asked, captured packets of real hosts turned towards it, mutations and scrambles of
 * all of these, and anything at all.
 *
 * It knows what a peer would know: the PSN it thinks each queue pair expects, and those it has seen.
 */
import {
  BURST,
  BURST_OFFSET,
  decodePacket,
  decodeRoce,
  encodePacket,
  FRAME_WORDS,
  type FramePool,
  HDR_AETH,
  HDR_RETH,
  headerOffset,
  OP_PAYLOAD,
  OP_RESPONSE,
  opFlags,
  opHeaderBytes,
  PACKET_MAX_BYTES,
  PAYLOAD_BYTES,
  PKEY_DEFAULT,
  QPT_RC,
  QPT_UC,
  QPT_UD,
  type RandomStream,
  RC_ACKNOWLEDGE,
  RC_ATOMIC_ACKNOWLEDGE,
  RC_ATOMIC_WRITE,
  RC_COMPARE_SWAP,
  RC_FETCH_ADD,
  RC_FLUSH,
  RC_READ_REQUEST,
  RC_READ_RESPONSE_FIRST,
  RC_READ_RESPONSE_LAST,
  RC_READ_RESPONSE_MIDDLE,
  RC_READ_RESPONSE_ONLY,
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
  RoceHeader,
  UC_SEND_FIRST,
  UD_SEND_ONLY,
  UD_SEND_ONLY_IMM,
  W_AETH,
  W_BTH_FLAGS,
  W_COMPARE_LOW,
  W_DEST_QPN,
  W_DMA_BYTES,
  W_IMMEDIATE,
  W_LIDS,
  W_OPCODE,
  W_PKEY,
  W_PSN,
  W_QKEY,
  W_RKEY,
  W_SOURCE_QPN,
} from '../../transport/index.ts';
import { icrcOfLocalPacket } from '../../transport/wire/icrc.ts';

/** Where a packet may point: a key and the range that it stands for. */
export interface Target {
  rkey: number;
  readonly address: number;
  readonly length: number;
  /** What a request may do with it: IBV_ACCESS_*, 0 where nothing. */
  readonly access: number;
}

/** What the peer believes of one queue pair. */
export interface Belief {
  qpn: number;
  type: number;
  /** The PSN that its responder expects, and the last request PSN that it sent. */
  expected: number;
  requested: number;
  /** A message that is being sent: opcodes of its next packets and bytes left, or undefined. */
  message: { middle: number; last: number; left: number } | undefined;
}

const ACCESS_REMOTE_WRITE = 2;
const ACCESS_REMOTE_READ = 4;
const ACCESS_REMOTE_ATOMIC = 8;
const ACCESS_FLUSH = 256;
const PAYLOAD_ROOM = 32_768;
/** So many of the targets, the last ones, are memory windows. */
export const WINDOWS = 3;

export class PacketSource {
  private readonly bytes = new Uint8Array(PACKET_MAX_BYTES + 64);
  private readonly header = new RoceHeader();
  /** What all payloads are cut from. */
  private readonly payloads: number;

  /** `badPermille`: packets that break a rule, in a thousand. */
  constructor(
    private readonly pool: FramePool,
    private readonly chance: RandomStream,
    private readonly beliefs: readonly Belief[],
    private readonly targets: readonly Target[],
    private readonly mtu: number,
    private readonly qkey: number,
    private readonly captured: readonly Uint8Array[],
    private readonly badPermille: number,
  ) {
    const bytes = Uint8Array.from({ length: PAYLOAD_ROOM }, () => chance.below(0x80));
    this.payloads = pool.burstFromBytes(bytes, 0, PAYLOAD_ROOM);
  }

  /** Lets go of what the packets are cut from. */
  close(): void {
    this.pool.releaseBurst(this.payloads);
  }

  /** Takes note of a packet of the adapter. */
  hear(qpn: number, opcode: number, psn: number, syndrome: number): void {
    const belief = this.beliefs.find((b) => b.qpn === qpn);
    if (belief === undefined) return;
    if (((opFlags[opcode] as number) & OP_RESPONSE) === 0) belief.requested = psn;
    else if (opcode === RC_ACKNOWLEDGE && syndrome >= 0x20) {
      // A NAK names what is expected; the message starts over in the middle, or is given up.
      belief.expected = psn;
      if (this.chance.below(2) === 0) belief.message = undefined;
    }
  }

  /** The next packet. */
  next(): number {
    const { chance } = this;
    const belief = this.pick(this.beliefs);
    if (chance.below(1000) < this.badPermille) {
      const kind = chance.below(8);
      if (kind === 0) return this.anything(belief);
      if (kind < 3) return this.mutate(this.replay(belief), chance.below(3));
      if (kind < 5) return this.scramble(this.good(belief));
      return this.mutate(this.good(belief), 1 + chance.below(2));
    }
    return this.good(belief);
  }

  private good(belief: Belief): number {
    const isAnswer = belief.type === QPT_RC && this.chance.below(4) === 0;
    return isAnswer ? this.response(belief) : this.request(belief);
  }

  /** A request in sequence: of the message under way, or the first of another. */
  private request(belief: Belief): number {
    if (belief.type === QPT_UD) return this.datagram(belief);
    const { chance, mtu } = this;
    const { message } = belief;
    if (message !== undefined) {
      const isLast = message.left <= mtu;
      const opcode = isLast ? message.last : message.middle;
      const frame = this.frame(belief, opcode, Math.min(mtu, message.left));
      message.left -= mtu;
      if (isLast) belief.message = undefined;
      return frame;
    }
    const kind = belief.type === QPT_RC ? chance.below(10) : chance.below(6);
    const length = chance.below(3) === 0 ? chance.below(4 * mtu) : chance.below(mtu + 1);
    if (kind < 6) return this.transfer(belief, kind >= 3, length);
    if (kind < 8) {
      const frame = this.pointed(belief, RC_READ_REQUEST, ACCESS_REMOTE_READ, length);
      belief.expected = (belief.expected + Math.max(0, Math.ceil(length / mtu) - 1)) & 0xffffff;
      return frame;
    }
    if (kind === 8) {
      const isAdd = chance.below(2) === 0;
      const opcode = isAdd ? RC_FETCH_ADD : RC_COMPARE_SWAP;
      const frame = this.pointed(belief, opcode, ACCESS_REMOTE_ATOMIC, 8);
      this.align(frame);
      const base = frame * FRAME_WORDS;
      for (let word = W_DMA_BYTES; word <= W_IMMEDIATE; word++) {
        this.pool.words[base + word] = chance.next();
      }
      this.pool.words[base + W_COMPARE_LOW] = chance.next();
      return frame;
    }
    if (chance.below(2) === 0) {
      const frame = this.pointed(belief, RC_ATOMIC_WRITE, ACCESS_REMOTE_WRITE, 8);
      this.align(frame);
      return frame;
    }
    const frame = this.pointed(belief, RC_FLUSH, ACCESS_FLUSH, length);
    this.pool.words[frame * FRAME_WORDS + W_IMMEDIATE] = chance.below(4) | (chance.below(3) << 4);
    return frame;
  }

  /** A SEND or a WRITE, or its first packet. */
  private transfer(belief: Belief, isWrite: boolean, length: number): number {
    const { chance, mtu } = this;
    const shift = belief.type === QPT_UC ? UC_SEND_FIRST : 0;
    const ending = chance.below(belief.type === QPT_UC || isWrite ? 2 : 3);
    if (length <= mtu) {
      const only = isWrite
        ? [RC_WRITE_ONLY, RC_WRITE_ONLY_IMM]
        : [RC_SEND_ONLY, RC_SEND_ONLY_IMM, RC_SEND_ONLY_INV];
      const opcode = shift + (only[ending] as number);
      if (isWrite) return this.pointed(belief, opcode, ACCESS_REMOTE_WRITE, length);
      const frame = this.frame(belief, opcode, length);
      if (ending === 2) this.setInvalidation(frame);
      return frame;
    }
    const lasts = isWrite
      ? [RC_WRITE_LAST, RC_WRITE_LAST_IMM]
      : [RC_SEND_LAST, RC_SEND_LAST_IMM, RC_SEND_LAST_INV];
    belief.message = {
      middle: shift + (isWrite ? RC_WRITE_MIDDLE : RC_SEND_MIDDLE),
      last: shift + (lasts[ending] as number),
      left: length - mtu,
    };
    if (!isWrite) return this.frame(belief, shift + RC_SEND_FIRST, mtu);
    return this.pointed(belief, shift + RC_WRITE_FIRST, ACCESS_REMOTE_WRITE, length);
  }

  private datagram(belief: Belief): number {
    const { chance, pool } = this;
    const opcode = chance.below(2) === 0 ? UD_SEND_ONLY : UD_SEND_ONLY_IMM;
    const frame = this.frame(belief, opcode, chance.below(this.mtu + 1));
    pool.words[frame * FRAME_WORDS + W_QKEY] = this.qkey;
    pool.words[frame * FRAME_WORDS + W_SOURCE_QPN] = chance.below(64);
    return frame;
  }

  /** An answer to something near what the queue pair sent last. */
  private response(belief: Belief): number {
    const { chance, mtu, pool } = this;
    const psn = (belief.requested + chance.below(4) - 1) & 0xffffff;
    const kind = chance.below(6);
    let opcode: number = RC_ACKNOWLEDGE;
    let payload = 0;
    if (kind === 4) opcode = RC_ATOMIC_ACKNOWLEDGE;
    else if (kind === 5) {
      opcode = this.pick([
        RC_READ_RESPONSE_FIRST,
        RC_READ_RESPONSE_MIDDLE,
        RC_READ_RESPONSE_LAST,
        RC_READ_RESPONSE_ONLY,
      ]);
      payload = chance.below(2) === 0 ? mtu : chance.below(mtu + 1);
    }
    const frame = this.frameOf(belief.qpn, opcode, psn, payload);
    const isBad = chance.below(1000) < this.badPermille;
    const syndromes = [0x1f, 0x1f, 0x1f, 0x00, 0x21, 0x2c, 0x60, 0x05];
    const syndrome = isBad ? chance.below(256) : this.pick(syndromes);
    const words = pool.words;
    words[frame * FRAME_WORDS + W_AETH] = (syndrome << 24) | chance.below(8);
    if (opcode === RC_ATOMIC_ACKNOWLEDGE) {
      words[frame * FRAME_WORDS + W_DMA_BYTES] = chance.next();
      words[frame * FRAME_WORDS + W_IMMEDIATE] = chance.next();
    }
    return frame;
  }

  /** A captured packet, turned towards one of the queue pairs. */
  private replay(belief: Belief): number {
    const { pool, chance } = this;
    const bytes = this.pick(this.captured);
    const withGrh = chance.below(2) === 0;
    const frame = decodeRoce(pool, bytes, 0, bytes.length, this.header, { withGrh });
    if (frame < 0) return this.good(belief);
    const words = pool.words;
    const base = frame * FRAME_WORDS;
    const opcode = words[base + W_OPCODE] as number;
    words[base + W_LIDS] = (2 << 16) | 1;
    words[base + W_BTH_FLAGS] &= 0x3f;
    words[base + W_DEST_QPN] = belief.qpn;
    const isAnswer = ((opFlags[opcode] as number) & OP_RESPONSE) !== 0;
    if (chance.below(4) > 0) {
      words[base + W_PSN] = isAnswer ? belief.requested : belief.expected;
      if (!isAnswer) belief.expected = (belief.expected + 1) & 0xffffff;
    }
    if (headerOffset(opcode, HDR_RETH) >= 0 && chance.below(4) > 0) {
      this.point(frame, this.pick(this.targets), words[base + W_DMA_BYTES] as number);
    }
    return frame;
  }

  /** Some words of a packet are others; whether that breaks it is chance. */
  private mutate(frame: number, changes: number): number {
    const { chance, pool } = this;
    const words = pool.words;
    const base = frame * FRAME_WORDS;
    for (let i = 0; i < changes; i++) {
      const near = (word: number, span: number): void => {
        words[base + word] =
          ((words[base + word] as number) + chance.below(2 * span + 1) - span) | 0;
      };
      switch (chance.below(16)) {
        case 0:
          words[base + W_DEST_QPN] = this.pick(this.beliefs).qpn;
          break;
        case 1:
          near(W_PSN, 4);
          break;
        case 2:
          words[base + W_PSN] = chance.next();
          break;
        case 3:
          words[base + W_OPCODE] = chance.below(0x20) | ((words[base + W_OPCODE] as number) & 0xe0);
          break;
        case 4:
          words[base + W_OPCODE] = chance.below(256);
          break;
        case 5:
          words[base + W_RKEY] = this.pick(this.targets).rkey;
          break;
        case 6:
          words[base + W_RKEY] = (words[base + W_RKEY] as number) ^ (1 << chance.below(32));
          break;
        case 7:
          pool.doubles[frame * 2] = this.moved(pool.doubles[frame * 2] as number);
          break;
        case 8:
          pool.doubles[frame * 2] = chance.next() * 2 ** 32 + chance.next();
          pool.doubles[frame * 2 + 1] = chance.next();
          break;
        case 9:
          near(W_DMA_BYTES, 5);
          break;
        case 10:
          words[base + W_DMA_BYTES] = chance.next();
          break;
        case 11:
          words[base + W_AETH] = chance.next();
          break;
        case 12:
          this.setPayload(frame, chance.below(3) === 0 ? 0 : chance.below(4097));
          break;
        case 13:
          words[base + W_PKEY] = chance.below(2) === 0 ? 0x7fff : chance.below(65_536);
          break;
        case 14:
          words[base + W_BTH_FLAGS] =
            chance.below(2) === 0 ? chance.below(32) : chance.next() & 0x1ffff1f;
          break;
        case 15:
          words[base + W_IMMEDIATE] = chance.next();
          words[base + W_LIDS] = chance.next();
          break;
      }
    }
    words[base + W_PSN] = (words[base + W_PSN] as number) & 0xffffff;
    // Only packets that carry a payload have one: the decoder sees to that.
    const flags = opFlags[words[base + W_OPCODE] as number] as number;
    if (flags !== 0 && (flags & OP_PAYLOAD) === 0 && chance.below(2) === 0)
      this.setPayload(frame, 0);
    return frame;
  }

  /** An address a few bytes, or many pages, away. */
  private moved(address: number): number {
    const span = this.chance.below(2) === 0 ? 8 : 2 ** 20;
    return Math.max(0, address + this.chance.below(2 * span) - span);
  }

  /** A packet through its bytes: some of them changed, the ICRC made right again. */
  private scramble(frame: number): number {
    const { bytes, chance, pool } = this;
    const end = encodePacket(pool, frame, 0, bytes, 0);
    for (let i = 1 + chance.below(4); i > 0; i--) {
      bytes[chance.below(Math.min(end - 4, 52))] = chance.below(256);
    }
    const payload = 8 + (opHeaderBytes[bytes[8] as number] ?? 0);
    for (let i = payload; i < end - 4; i++) bytes[i] = (bytes[i] as number) & 0x7f;
    const icrc = icrcOfLocalPacket(bytes, 0, end - 4);
    for (let i = 0; i < 4; i++) bytes[end - 4 + i] = icrc >>> (8 * i);
    const scrambled = decodePacket(pool, bytes, 0, end);
    if (scrambled < 0) return frame;
    pool.release(frame);
    return scrambled;
  }

  private anything(belief: Belief): number {
    const { chance, pool } = this;
    const isNear = chance.below(3) > 0;
    const psn = chance.below(2) === 0 ? chance.below(2 ** 24) : belief.expected;
    const qpn = isNear ? belief.qpn : chance.below(2 ** 24);
    const frame = this.frameOf(qpn, chance.below(256), psn, chance.below(4097));
    for (let word = W_RKEY; word < PAYLOAD_BYTES; word++) {
      if (word !== W_LIDS && (word !== W_PKEY || chance.below(4) === 0)) {
        pool.words[frame * FRAME_WORDS + word] = chance.next();
      }
    }
    pool.words[frame * FRAME_WORDS + W_BTH_FLAGS] = chance.next() & 0x1ffff1f;
    pool.doubles[frame * 2] = chance.next() * 2 ** chance.below(22);
    return frame;
  }

  /** The next request of `belief`, with a RETH or AtomicETH that points where it may, mostly. */
  private pointed(belief: Belief, opcode: number, access: number, length: number): number {
    const { chance } = this;
    const flags = opFlags[opcode] as number;
    const payload = (flags & OP_PAYLOAD) === 0 ? 0 : Math.min(length, this.mtu);
    const frame = this.frame(belief, opcode, payload);
    const isBad = chance.below(1000) < this.badPermille;
    // Windows, the last of all, are bound now and unbound then.
    const sure = this.targets.slice(0, isBad || chance.below(8) === 0 ? undefined : -WINDOWS);
    const fitting = sure.filter((t) => isBad || (t.access & access) !== 0);
    this.point(frame, this.pick(fitting), length);
    return frame;
  }

  private point(frame: number, target: Target, length: number): void {
    const words = this.pool.words;
    const base = frame * FRAME_WORDS;
    // Often at the edges, where an error of one shows; a few bytes too far where rules are broken.
    const { chance } = this;
    const room = target.length - length;
    const edge = [0, room][chance.below(2)] as number;
    const isBeyond = chance.below(1000) < this.badPermille;
    const near = isBeyond ? edge + chance.below(5) - 2 : edge;
    const within = chance.below(3) === 0 ? near : chance.below(Math.max(1, room));
    words[base + W_RKEY] = target.rkey;
    words[base + W_DMA_BYTES] = length;
    this.pool.doubles[frame * 2] = Math.max(0, target.address + within);
    this.pool.doubles[frame * 2 + 1] = 0;
  }

  /** Atomics want eight-byte boundaries; now and then they do not get them. */
  private align(frame: number): void {
    if (this.chance.below(1000) < this.badPermille) return;
    const { doubles } = this.pool;
    doubles[frame * 2] = Math.floor((doubles[frame * 2] as number) / 8) * 8;
  }

  private setInvalidation(frame: number): void {
    // What can be invalidated.
    const windows = this.targets.slice(-WINDOWS);
    this.pool.words[frame * FRAME_WORDS + W_IMMEDIATE] = this.pick(windows).rkey;
  }

  /** The next packet of `belief` in sequence. */
  private frame(belief: Belief, opcode: number, payload: number): number {
    const psn = belief.expected;
    belief.expected = (psn + 1) & 0xffffff;
    return this.frameOf(belief.qpn, opcode, psn, payload);
  }

  private frameOf(qpn: number, opcode: number, psn: number, payload: number): number {
    const { pool, chance } = this;
    const frame = pool.allocate();
    const words = pool.words;
    const base = frame * FRAME_WORDS;
    words[base + W_OPCODE] = opcode;
    words[base + W_DEST_QPN] = qpn;
    words[base + W_PSN] = psn;
    words[base + W_BTH_FLAGS] = chance.below(4);
    words[base + W_LIDS] = (2 << 16) | 1;
    words[base + W_PKEY] = PKEY_DEFAULT;
    if (headerOffset(opcode, HDR_AETH) < 0) words[base + W_IMMEDIATE] = chance.next();
    if (payload > 0) this.setPayload(frame, payload);
    return frame;
  }

  private setPayload(frame: number, bytes: number): void {
    const { pool } = this;
    const words = pool.words;
    const base = frame * FRAME_WORDS;
    const burst = words[base + BURST] as number;
    if (burst !== 0) pool.releaseBurst(burst);
    words[base + PAYLOAD_BYTES] = bytes;
    words[base + BURST] = bytes > 0 ? this.payloads : 0;
    words[base + BURST_OFFSET] = bytes > 0 ? this.chance.below(PAYLOAD_ROOM - bytes) : 0;
    if (bytes > 0) pool.retainBurst(this.payloads);
  }

  private pick<T>(of: readonly T[]): T {
    return of[this.chance.below(of.length)] as T;
  }
}
