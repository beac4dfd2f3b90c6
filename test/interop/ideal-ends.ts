/**
 * Owns two ends without any network between them, which do at once what a transport should: the
 * judge's own judge. A test makes one of them misbehave and looks whether the cell turns red.
 */
import {
  type Answer,
  type Command,
  type Completion,
  type End,
  type EndAddress,
  type EndOptions,
  pattern,
  type Service,
  type Side,
} from './end.ts';

const GRH_BYTES = 40;
const REGION_RKEY = 0x1000;

/** How an end may misbehave; each returns what happens instead. */
export interface Faults {
  /** Bytes that arrive at the responder or requester. */
  data?(bytes: Buffer, op: string): Buffer;
  /** Completions as they are handed out. */
  completion?(completion: Completion): Completion[];
  /** Whether messages are lost on the way. */
  isLost?(): boolean;
}

interface PostedReceive {
  readonly id: number;
  readonly offset: number;
}

const number = (value: Command[string] | undefined): number => Number(value ?? 0);

class IdealEnd implements End {
  readonly memory: Buffer;
  readonly address: EndAddress;
  readonly receives: PostedReceive[] = [];
  peer: IdealEnd | undefined;
  private readonly completions: Completion[] = [];
  private nextId = 1;
  private nextRkey = 0x2000;

  constructor(
    readonly name: string,
    private readonly service: Service,
    memoryBytes: number,
    private readonly faults: Faults,
    qpn: number,
  ) {
    this.memory = Buffer.alloc(memoryBytes);
    this.address = { qpn, psn: 0, gid: '', memoryAddress: BigInt(qpn) << 32n, rkey: REGION_RKEY };
  }

  async connect(): Promise<void> {}
  async close(): Promise<void> {}

  async run(commands: readonly Command[]): Promise<Answer> {
    const answer = {
      completions: [] as Completion[],
      dumps: [] as Buffer[],
      windowRkeys: [] as number[],
      errors: [] as string[],
    };
    for (const command of commands) this.execute(command, answer);
    return answer;
  }

  complete(completion: Partial<Completion>): void {
    const whole = {
      id: this.nextId++,
      status: 0,
      statusText: 'success',
      op: '',
      length: 0,
      immediate: undefined,
      invalidatedRkey: undefined,
      ...completion,
    };
    this.completions.push(...(this.faults.completion?.(whole) ?? [whole]));
  }

  private execute(
    command: Command,
    answer: { completions: Completion[]; dumps: Buffer[]; windowRkeys: number[]; errors: string[] },
  ): void {
    const [offset, length, seed] = [number(command.off), number(command.len), number(command.seed)];
    switch (command.verb) {
      case 'fill':
        for (let i = 0; i < length; i++) this.memory[offset + i] = pattern(seed, i);
        return;
      case 'check':
        for (let i = 0; i < length; i++) {
          if (this.memory[offset + i] === pattern(seed, i)) continue;
          answer.errors.push(`CHECK bad at=${i}`);
          return;
        }
        return;
      case 'advise':
        return;
      case 'dump':
        answer.dumps.push(Buffer.from(this.memory.subarray(offset, offset + length)));
        return;
      case 'recv':
        this.receives.push({
          id: command.wrid === undefined ? this.nextId++ : number(command.wrid),
          offset,
        });
        return;
      case 'mw':
        answer.windowRkeys.push(this.nextRkey);
        return;
      case 'wait': {
        const found = this.completions.splice(0, number(command.n));
        answer.completions.push(...found);
        if (found.length < number(command.n))
          answer.errors.push(`wait: ${found.length} of ${command.n}`);
        return;
      }
      case 'expect':
        answer.completions.push(...this.completions.splice(0));
        return;
      case 'post':
        if (command.op === 'bind') answer.windowRkeys.push(++this.nextRkey);
        this.post(command, offset, length);
        return;
      default:
        throw new Error(`an ideal end knows no ${command.verb}`);
    }
  }

  private post(command: Command, offset: number, length: number): void {
    const op = String(command.op);
    const peer = this.peer as IdealEnd;
    const isLost = this.faults.isLost?.() ?? false;
    const remote = Number(BigInt(command.raddr ?? 0) - peer.address.memoryAddress);
    const arriving = (bytes: Buffer) => this.faults.data?.(Buffer.from(bytes), op) ?? bytes;
    const local = this.memory.subarray(offset, offset + length);
    const immediate = op.endsWith('imm') ? number(command.imm) : undefined;
    if (!isLost) {
      if (op.startsWith('send')) {
        const header = this.service === 'ud' ? GRH_BYTES : 0;
        const receive = peer.receives.shift();
        if (receive !== undefined) {
          arriving(local).copy(peer.memory, receive.offset + header);
          const invalidatedRkey = op === 'sendinv' ? number(command.inv) : undefined;
          peer.complete({
            id: receive.id,
            op: 'recv',
            length: length + header,
            immediate,
            invalidatedRkey,
          });
        }
      } else if (op.startsWith('write')) {
        arriving(local).copy(peer.memory, remote);
        if (immediate !== undefined) {
          peer.complete({
            id: peer.receives.shift()?.id ?? 0,
            op: 'recv_write_imm',
            length,
            immediate,
          });
        }
      } else if (op === 'read') {
        arriving(peer.memory.subarray(remote, remote + length)).copy(this.memory, offset);
      } else if (op === 'cas' || op === 'faa' || op === 'awrite') {
        this.atomic(command, op, { memory: peer.memory, at: remote }, offset, arriving);
      }
    }
    this.complete({ op });
  }

  private atomic(
    command: Command,
    op: string,
    { memory, at }: { memory: Buffer; at: number },
    offset: number,
    arriving: (bytes: Buffer) => Buffer,
  ): void {
    const before = memory.readBigUInt64LE(at);
    const wanted = (name: string) => BigInt(command[name] ?? 0);
    let after = wanted('val');
    if (op === 'faa') after = BigInt.asUintN(64, before + wanted('add'));
    if (op === 'cas') after = before === wanted('cmp') ? wanted('swap') : before;
    const result = Buffer.alloc(8);
    if (op !== 'awrite') {
      result.writeBigUInt64LE(before);
      arriving(result).copy(this.memory, offset);
    }
    const stored = Buffer.alloc(8);
    stored.writeBigUInt64LE(after);
    arriving(stored).copy(memory, at);
  }
}

/** Two sides whose ends are each other's peers, as they are opened in turn. */
export function idealSides(faults: Faults): { guest: Side; us: Side } {
  let waiting: IdealEnd | undefined;
  let qpn = 1;
  const side = (name: string): Side => ({
    async open({ service, memoryBytes }: EndOptions) {
      const end = new IdealEnd(name, service, memoryBytes, faults, qpn++);
      if (waiting === undefined) waiting = end;
      else {
        end.peer = waiting;
        waiting.peer = end;
        waiting = undefined;
      }
      return end;
    },
  });
  return { guest: side('guest'), us: side('us') };
}
