/**
 * Packets for the fuzzer: in sequence and valid, almost valid, and anything at all.
 *
 * It knows what a peer would know: the PSN it thinks each queue pair expects, and the PSNs it has
 * seen. Every payload byte is below 0x80, so that bytes of memory that nobody may read can be told.
 */
import {
  decodePacket,
  encodePacket,
  type FramePool,
  OP_PAYLOAD,
  opFlags,
  opHeaderBytes,
  PACKET_MAX_BYTES,
  RandomStream,
  RC_ACKNOWLEDGE,
  RC_READ_REQUEST,
  RC_READ_RESPONSE_FIRST,
  RC_READ_RESPONSE_LAST,
  RC_READ_RESPONSE_MIDDLE,
  RC_READ_RESPONSE_ONLY,
  RC_SEND_FIRST,
  RC_SEND_LAST,
  RC_SEND_LAST_IMM,
  RC_SEND_MIDDLE,
  RC_SEND_ONLY,
  RC_SEND_ONLY_IMM,
  RC_WRITE_FIRST,
  RC_WRITE_LAST,
  RC_WRITE_LAST_IMM,
  RC_WRITE_MIDDLE,
  RC_WRITE_ONLY,
  RC_WRITE_ONLY_IMM,
} from '../../transport/index.ts';
import { icrcOfLocalPacket } from '../../transport/wire/icrc.ts';
import type { PlainPacket, SeenPacket } from '../fixtures/wire-peer.ts';

/** Where a packet may point: a key and the range that it stands for. */
export interface Target {
  readonly rkey: number;
  readonly address: number;
  readonly length: number;
  readonly mayWrite: boolean;
  readonly mayRead: boolean;
}

/** What the peer believes of one queue pair. */
interface Belief {
  readonly qpn: number;
  /** The PSN that its responder expects, and the last request PSN that it sent. */
  expected: number;
  requested: number;
  /** A message that is being sent: opcodes of its next packets and bytes left, or undefined. */
  message: { middle: number; last: number; left: number } | undefined;
}

export class PacketSource {
  private readonly chance: RandomStream;
  private readonly beliefs: Belief[];
  private readonly bytes = new Uint8Array(PACKET_MAX_BYTES + 64);
  private last: PlainPacket = { opcode: RC_SEND_ONLY, psn: 0 };

  constructor(
    seed: number,
    qpns: readonly number[],
    firstPsn: number,
    private readonly mtu: number,
    private readonly targets: readonly Target[],
    /** Packets that break a rule, in a thousand. */
    private readonly badPermille: number,
  ) {
    this.chance = new RandomStream(seed, 'peer', 'packets');
    this.beliefs = qpns.map((qpn) => ({
      qpn,
      expected: firstPsn,
      requested: firstPsn,
      message: undefined,
    }));
  }

  /** Takes note of a packet of the adapter. */
  hear({ opcode, psn, qpn, syndrome }: SeenPacket): void {
    const belief = this.beliefs.find((b) => b.qpn === qpn);
    if (belief === undefined) return;
    if (opcode !== RC_ACKNOWLEDGE) belief.requested = psn;
    else if (syndrome >= 0x20) {
      // A NAK names what is expected; the message starts over in the middle, or is given up.
      belief.expected = psn;
      if (this.chance.below(2) === 0) belief.message = undefined;
    }
  }

  /** The next packet. */
  next(): PlainPacket {
    const belief = this.pick(this.beliefs);
    if (this.chance.below(1000) < this.badPermille) {
      return this.chance.below(3) === 0 ? this.anything(belief) : this.mutate(this.last, belief);
    }
    this.last = this.chance.below(4) > 0 ? this.request(belief) : this.response(belief);
    return this.last;
  }

  /**
   * A packet through its bytes: some of them changed, the ICRC made right again. Returns a frame, or
   * a negative number where the bytes are no packet.
   */
  scrambled(pool: FramePool, frame: number): number {
    const { bytes } = this;
    const end = encodePacket(pool, frame, 0, bytes, 0);
    for (let i = 1 + this.chance.below(4); i > 0; i--) {
      // Mostly headers; a changed payload says little.
      bytes[this.chance.below(Math.min(end - 4, 44))] = this.chance.below(256);
    }
    const payload = 8 + (opHeaderBytes[bytes[8] as number] ?? 0);
    for (let i = payload; i < end - 4; i++) bytes[i] = (bytes[i] as number) & 0x7f;
    const icrc = icrcOfLocalPacket(bytes, 0, end - 4);
    for (let i = 0; i < 4; i++) bytes[end - 4 + i] = icrc >>> (8 * i);
    return decodePacket(pool, bytes, 0, end);
  }

  /** A request in sequence: of the message under way, or the first of another. */
  private request(belief: Belief): PlainPacket {
    const { chance, mtu } = this;
    const common = { qpn: belief.qpn, psn: belief.expected, flags: chance.below(4) };
    belief.expected = (belief.expected + 1) & 0xffffff;
    const { message } = belief;
    if (message !== undefined) {
      const isLast = message.left <= mtu;
      const payload = this.payload(Math.min(mtu, message.left));
      message.left -= mtu;
      if (isLast) belief.message = undefined;
      return { ...common, opcode: isLast ? message.last : message.middle, payload, immediate: 7 };
    }
    const length = chance.below(3) === 0 ? chance.below(4 * mtu) : chance.below(mtu + 1);
    const isRead = chance.below(4) === 0;
    const isBad = chance.below(1000) < this.badPermille;
    const target = this.pick(
      this.targets.filter((t) => isBad || (isRead ? t.mayRead : t.mayWrite)),
    );
    const within = chance.below(Math.max(1, target.length - length));
    const reth = { rkey: target.rkey, address: target.address + within, dmaBytes: length };
    if (isRead) {
      belief.expected = (common.psn + Math.max(1, Math.ceil(length / mtu))) & 0xffffff;
      return { ...common, ...reth, opcode: RC_READ_REQUEST };
    }
    const isWrite = chance.below(3) > 0;
    const hasImmediate = chance.below(3) === 0;
    const payload = this.payload(Math.min(mtu, length));
    if (length <= mtu) {
      const only = isWrite ? [RC_WRITE_ONLY, RC_WRITE_ONLY_IMM] : [RC_SEND_ONLY, RC_SEND_ONLY_IMM];
      return { ...common, ...reth, opcode: only[hasImmediate ? 1 : 0] as number, payload };
    }
    const lasts = isWrite ? [RC_WRITE_LAST, RC_WRITE_LAST_IMM] : [RC_SEND_LAST, RC_SEND_LAST_IMM];
    belief.message = {
      middle: isWrite ? RC_WRITE_MIDDLE : RC_SEND_MIDDLE,
      last: lasts[hasImmediate ? 1 : 0] as number,
      left: length - mtu,
    };
    return { ...common, ...reth, opcode: isWrite ? RC_WRITE_FIRST : RC_SEND_FIRST, payload };
  }

  /** An answer to something near what the queue pair sent last. */
  private response(belief: Belief): PlainPacket {
    const { chance, mtu } = this;
    const psn = (belief.requested + chance.below(4) - 1) & 0xffffff;
    const common = { qpn: belief.qpn, psn, msn: chance.below(8) };
    if (chance.below(3) > 0) {
      const fatal = chance.below(1000) < this.badPermille ? [0x61, 0x62, 0x63] : [];
      const syndromes = [0x1f, 0x1f, 0x1f, 0x00, 0x21, 0x2c, 0x60, ...fatal];
      return { ...common, opcode: RC_ACKNOWLEDGE, syndrome: this.pick(syndromes) };
    }
    const opcode = this.pick([
      RC_READ_RESPONSE_FIRST,
      RC_READ_RESPONSE_MIDDLE,
      RC_READ_RESPONSE_LAST,
      RC_READ_RESPONSE_ONLY,
    ]);
    const length = chance.below(2) === 0 ? mtu : chance.below(mtu + 1);
    return { ...common, opcode, syndrome: 0x1f, payload: this.payload(length) };
  }

  /** One thing about a packet is another. */
  private mutate(packet: PlainPacket, belief: Belief): PlainPacket {
    const { chance } = this;
    const target = this.pick(this.targets);
    const near = (value: number, span: number): number => value + chance.below(2 * span + 1) - span;
    const changes: (() => Partial<PlainPacket>)[] = [
      () => ({}),
      () => ({ qpn: belief.qpn }),
      () => ({ psn: near(packet.psn, 4) & 0xffffff }),
      () => ({ psn: chance.below(2 ** 24) }),
      () => ({ opcode: chance.below(0x20) }),
      () => ({ rkey: target.rkey }),
      () => ({ rkey: (packet.rkey ?? 0) ^ (1 << chance.below(32)) }),
      () => ({ address: Math.max(0, near(packet.address ?? 0, 2 ** 20)) }),
      () => ({ address: chance.next() * 2 ** 21 + chance.next() }),
      () => ({ dmaBytes: near(packet.dmaBytes ?? 0, 5) >>> 0 }),
      () => ({ dmaBytes: chance.next() }),
      () => ({ syndrome: chance.below(256) }),
      () => ({ payload: this.payload(chance.below(4097)) }),
      () => ({ payload: new Uint8Array(0) }),
    ];
    return this.whole({ ...packet, ...this.pick(changes)() });
  }

  private anything(belief: Belief): PlainPacket {
    const { chance } = this;
    return this.whole({
      opcode: chance.below(256),
      qpn: chance.below(3) === 0 ? chance.below(2 ** 24) : belief.qpn,
      psn: chance.below(2) === 0 ? chance.below(2 ** 24) : belief.expected,
      flags: chance.below(4),
      rkey: chance.next() | 0,
      address: chance.next() * 2 ** chance.below(22),
      dmaBytes: chance.next(),
      syndrome: chance.below(256),
      msn: chance.below(2 ** 24),
      immediate: chance.next() | 0,
      payload: this.payload(chance.below(4097)),
    });
  }

  /** Only packets that carry a payload have one: the decoder sees to that. */
  private whole(packet: PlainPacket): PlainPacket {
    const isLoaded = ((opFlags[packet.opcode] ?? 0) & OP_PAYLOAD) !== 0;
    return isLoaded ? packet : { ...packet, payload: new Uint8Array(0) };
  }

  private payload(length: number): Uint8Array {
    return new Uint8Array(length).fill(this.chance.below(0x80));
  }

  private pick<T>(of: readonly T[]): T {
    return of[this.chance.below(of.length)] as T;
  }
}
