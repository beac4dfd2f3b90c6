/**
 * The jobs of one host on one queue pair, drawn one after another, with the receives that its peer
 * posts for them and the places in memory that both use.
 */
import {
  QPT_RC,
  QPT_UD,
  type RandomStream,
  US,
  WR_ATOMIC_CMP_AND_SWP,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_ATOMIC_WRITE,
  WR_FLUSH,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
  WR_SEND_WITH_IMM,
} from '../../transport/index.ts';
import {
  GRH_BYTES,
  type Job,
  type Kind,
  type Piece,
  type Plan,
  type Queue,
  type SidePlan,
  SOURCE,
  SOURCE_BYTES,
  START_PS,
  TARGET,
  TARGET_BYTES,
} from './sweep-cells.ts';

const PAGE = 4096;

/** Hands out TARGET of one host, every byte once. */
export class Places {
  private next = TARGET;

  /** Bytes from the start of TARGET to the end of the last place, and a margin. */
  get used(): number {
    return Math.min(TARGET_BYTES, this.next - TARGET + PAGE);
  }

  take(length: number, align = 1): number {
    const at = Math.ceil(this.next / align) * align;
    this.next = at + length;
    if (this.next > TARGET + TARGET_BYTES) throw new Error('TARGET is too small for the plan');
    return at;
  }

  /** Leaves a gap, which must stay as it is. */
  skip(bytes: number): void {
    this.next += bytes;
  }
}

/** Draws the jobs of one host on one queue pair, and the receives that its peer posts for them. */
export class JobArtist {
  private atPs = START_PS;
  private receivePs = START_PS - 100 * US;
  private isFenceDue = false;
  private value = 0n;
  /** The stretch that was written last: what a FLUSH asks for. */
  private written = { address: SOURCE, length: 8 };
  private readonly mine: Queue;

  constructor(
    private readonly plan: Plan,
    private readonly side: 0 | 1,
    private readonly queue: number,
    private readonly kinds: readonly Kind[],
    private readonly places: readonly [Places, Places],
    private readonly chance: RandomStream,
  ) {
    this.mine = plan.sides[side].queues[queue] as Queue;
    this.mine.cell = places[1 - side].take(8, 8);
  }

  draw(count: number): void {
    for (let i = 0; i < count; i++) {
      this.mine.jobs.push(this.job(i, i === count - 1));
    }
    this.mine.cellValue = this.value;
  }

  private job(i: number, isLast: boolean): Job {
    const { chance, plan, side } = this;
    const kind = this.kinds[chance.below(this.kinds.length)] as Kind;
    this.atPs += chance.below(3) === 0 ? chance.below(100 * US) : 0;
    const job = {
      atPs: this.atPs,
      // Of two queue pairs no two work requests have the same number.
      wrId: (this.queue << 16) | i,
      opcode: WR_SEND as number,
      length: 8,
      local: [] as readonly Piece[],
      remote: 0,
      immediate: chance.next() | 0,
      isSignaled: isLast || chance.below(3) > 0,
      isFenced: this.isFenceDue || chance.below(8) === 0,
      isInline: false,
      compareAdd: 0n,
      swap: 0n,
      result: undefined as bigint | undefined,
      to: this.queue,
    };
    this.isFenceDue = false;
    switch (kind) {
      case 'send':
      case 'sendImm':
        job.opcode = kind === 'send' ? WR_SEND : WR_SEND_WITH_IMM;
        job.length = this.length();
        if (plan.type === QPT_UD) job.to = chance.below(plan.queuePairs);
        this.receive(job.to, job.length);
        break;
      case 'write':
      case 'writeImm':
        job.opcode = kind === 'write' ? WR_RDMA_WRITE : WR_RDMA_WRITE_WITH_IMM;
        job.length = this.length();
        job.remote = this.place(1 - side, job.length);
        if (kind === 'writeImm') this.receive(this.queue, 0);
        this.written = { address: job.remote, length: Math.max(1, job.length) };
        break;
      case 'read':
        job.opcode = WR_RDMA_READ;
        job.length = this.length();
        job.remote = this.source(job.length);
        break;
      case 'flush':
        job.opcode = WR_FLUSH;
        job.length = this.written.length;
        job.remote = this.written.address;
        // Placement type global visibility, selectivity a range.
        job.immediate = 1;
        return job;
      default:
        Object.assign(job, this.onCell(kind));
    }
    const isGathered = kind !== 'read' && job.result === undefined && kind !== 'count';
    if (isGathered && kind !== 'atomicWrite') {
      job.local = this.split(job.length, (length) => this.source(length));
      job.isInline = job.length <= 64 && chance.below(4) === 0;
    } else if (kind !== 'atomicWrite') {
      const isCell = job.opcode !== WR_RDMA_READ;
      const take = (length: number): number => this.place(side, length, isCell ? 8 : 1);
      job.local = isCell ? [{ address: take(8), length: 8 }] : this.split(job.length, take);
    }
    return job;
  }

  /** A job on the cell of this queue pair, or on the counter. */
  private onCell(kind: Kind): Partial<Job> {
    const { chance, plan, mine } = this;
    const random = (): bigint => (BigInt(chance.next()) << 32n) | BigInt(chance.next());
    const result = this.value;
    if (kind === 'readBack') {
      this.isFenceDue = true;
      return { opcode: WR_RDMA_READ, remote: mine.cell, result };
    }
    if (kind === 'atomicWrite') {
      // The value is eight bytes of SOURCE, so that it can be told which were written.
      const address = this.source(8);
      this.value = 0n;
      for (let i = 7; i >= 0; i--) {
        const { source } = plan.sides[this.side];
        this.value = (this.value << 8n) | BigInt(source[address - SOURCE + i] as number);
      }
      return { opcode: WR_ATOMIC_WRITE, remote: mine.cell, local: [{ address, length: 8 }] };
    }
    if (kind === 'count') {
      const peer = plan.sides[1 - this.side] as SidePlan;
      peer.count++;
      return { opcode: WR_ATOMIC_FETCH_AND_ADD, remote: peer.counter, compareAdd: 1n };
    }
    if (kind === 'fetchAdd') {
      const compareAdd = random();
      this.value = BigInt.asUintN(64, this.value + compareAdd);
      return { opcode: WR_ATOMIC_FETCH_AND_ADD, remote: mine.cell, compareAdd, result };
    }
    const compareAdd = chance.below(4) === 0 ? random() : this.value;
    const swap = random();
    if (compareAdd === this.value) this.value = swap;
    return { opcode: WR_ATOMIC_CMP_AND_SWP, remote: mine.cell, compareAdd, swap, result };
  }

  /** A receive of the peer for a message of `length` bytes. */
  private receive(queue: number, length: number): void {
    const { plan, chance, side } = this;
    const { mtu, type, usesSharedReceives } = plan;
    const peer = plan.sides[1 - side] as SidePlan;
    const list = usesSharedReceives ? peer.shared : (peer.queues[queue] as Queue).receives;
    const isReliable = type === QPT_RC;
    // Now and then the receive comes late, and so do all behind it. Only RC waits for it.
    if (isReliable && chance.below(6) === 0) {
      this.receivePs = Math.max(this.receivePs, this.atPs) + chance.below(300 * US);
    }
    // Where it is open which message comes, there is room for any.
    const most = type === QPT_UD ? mtu + GRH_BYTES : 7 * mtu;
    const room = isReliable && !usesSharedReceives ? length + chance.below(3) * 50 : most;
    const pieces = this.split(room, (bytes) => this.place(1 - side, bytes));
    const wrId = 0x1000000 | (queue << 16) | list.length;
    list.push({ atPs: this.receivePs, wrId, pieces, length: room });
  }

  /** A place of its own in TARGET of `side`, with a gap behind it now and then. */
  private place(side: number, length: number, align = 1): number {
    const places = this.places[side as 0 | 1];
    if (this.chance.below(3) === 0) places.skip(this.chance.below(300));
    return places.take(length, align);
  }

  private source(length: number): number {
    return SOURCE + this.chance.below(SOURCE_BYTES - length);
  }

  private split(length: number, take: (length: number) => number): readonly Piece[] {
    const { chance } = this;
    if (length === 0) return [];
    if (length < 16 || chance.below(2) === 0) return [{ address: take(length), length }];
    const pieces: Piece[] = [];
    let left = length;
    while (left > 0) {
      const piece = pieces.length === 5 ? left : Math.min(left, 1 + chance.below(length));
      pieces.push({ address: take(piece), length: piece });
      left -= piece;
    }
    return pieces;
  }

  private length(): number {
    const { chance, plan } = this;
    const { mtu, type } = plan;
    // What may be lost must be told apart by its bytes.
    const least = type === QPT_RC ? 0 : 12;
    const most = type === QPT_UD ? mtu : 7 * mtu;
    const drawn = [
      () => chance.below(9),
      () => mtu * chance.below(6),
      () => mtu * (1 + chance.below(4)) + chance.below(3) - 1,
      () => chance.below(mtu),
      () => chance.below(7 * mtu),
    ][chance.below(5)] as () => number;
    return Math.min(most, Math.max(least, drawn()));
  }
}
