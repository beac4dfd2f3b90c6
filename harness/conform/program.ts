/**
 * A captured program on our host: the commands of a rcpeer as verbs calls, with our keys for its keys.
 *
 * Owns its queue pair and completions; what it has registered is `program-memory.ts`'s. When a command runs, and
 * what its answers have to be, is the player's business. On-demand regions are registered pinned: how
 * memory is registered shows on the wire only where somebody's page faults do, and those of the
 * captured host are not in the capture.
 */
import {
  type CompletionQueue,
  PAGE_BYTES,
  type QueuePair,
  type SendRequest,
  type WorkCompletion,
} from '../../kernel/index.ts';
import {
  Failure,
  FLUSH_GLOBAL,
  QPS_ERR,
  QPS_INIT,
  QPS_RESET,
  QPS_RTR,
  QPS_RTS,
  QPS_SQD,
  QPS_SQE,
  QPT_RC,
  QPT_UD,
  SEND_FENCE,
  SEND_INLINE,
  SEND_SIGNALED,
  SEND_SOLICITED,
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
import { ProgramMemory, pageUp, SCRATCH_ADDRESS } from './program-memory.ts';
import { type CommandText, parseRegion, Words } from './rcpeer-text.ts';
import type { ConnectionSetup, QueuePairSetup } from './setup.ts';
import { PEER_LID, Stage } from './stage.ts';
import { accessOf, connectionSetup, regionSetup } from './text-setup.ts';

/** Room for the bookkeeping of the host. */
const SPARE_BYTES = 4 * 2 ** 20;
const MEMORY_MAX_BYTES = 2 ** 31;
const CQ_ENTRIES = 4096;
/** READs and atomics at once that our adapter offers; rxe offers 128. */
const RD_ATOMIC_MAX = 16;
/** What rcpeer gives a window that is bound, where it is not told. */
const WINDOW_ACCESS = 'rwa';

const operations: Readonly<Record<string, number>> = {
  send: WR_SEND,
  sendimm: WR_SEND_WITH_IMM,
  sendinv: WR_SEND_WITH_INV,
  write: WR_RDMA_WRITE,
  writeimm: WR_RDMA_WRITE_WITH_IMM,
  read: WR_RDMA_READ,
  cas: WR_ATOMIC_CMP_AND_SWP,
  faa: WR_ATOMIC_FETCH_AND_ADD,
  inv: WR_LOCAL_INV,
  bind: WR_BIND_MW,
  flush: WR_FLUSH,
  awrite: WR_ATOMIC_WRITE,
};

const states: Readonly<Record<string, number>> = {
  reset: QPS_RESET,
  init: QPS_INIT,
  rtr: QPS_RTR,
  rts: QPS_RTS,
  sqd: QPS_SQD,
  sqe: QPS_SQE,
  err: QPS_ERR,
};

/** A completion of ours, under the name its work request had in the captured program. */
export interface OurCompletion extends WorkCompletion {
  readonly id: string;
}

export class Program {
  readonly memory: ProgramMemory;
  private readonly pd: number;
  private readonly cq: CompletionQueue;
  private readonly qp: QueuePair;
  /** Captured names of our work requests, by our number. */
  private readonly ids: string[] = [];
  private connection: ConnectionSetup;
  /** Bytes of each receive, in the order of posting. */
  readonly receiveBytes: number[] = [];

  /** Opens the device as the captured program did. `scratchBytes`: the largest message of a tool. */
  constructor(
    private readonly stage: Stage,
    private readonly setup: QueuePairSetup,
    private readonly scratchBytes: number,
  ) {
    const { verbs } = stage.host;
    this.pd = stage.run('alloc_pd', verbs.allocPd());
    this.cq = stage.run('create_cq', verbs.createCq(CQ_ENTRIES));
    const plan = {
      sendCq: this.cq,
      recvCq: this.cq,
      maxSendWr: setup.sendEntries,
      maxRecvWr: setup.receiveEntries,
      type: setup.type,
      sqSigAll: setup.sigAll,
    };
    this.qp = stage.run('create_qp', verbs.createQp(this.pd, plan));
    this.memory = new ProgramMemory(stage, this.pd, scratchBytes);
    for (const region of setup.regions) this.memory.add(region);
    this.connection = setup.connections[0] ?? connectionSetup(new Words('', ''), setup.name);
    if (setup.program === undefined) this.connect(['QP INIT', 'QP RTR', 'QP RTS']);
  }

  /** A stage with room for the memory of `setup`. */
  static stageFor(setup: QueuePairSetup, scratchBytes: number): Stage {
    let bytes = SPARE_BYTES + pageUp(scratchBytes);
    for (const { length } of setup.regions) bytes += pageUp(length) + PAGE_BYTES;
    for (const { name, words } of setup.program ?? []) {
      if (name === 'mr') bytes += pageUp(words.number('len', 4096)) + PAGE_BYTES;
    }
    if (bytes > MEMORY_MAX_BYTES) {
      const what = `its regions have ${bytes} bytes`;
      throw new Failure('E_SETUP_INVALID', what, setup.name, `at most ${MEMORY_MAX_BYTES}`);
    }
    return new Stage(bytes);
  }

  /** Number of our queue pair. */
  get qpn(): number {
    return this.qp.qpn;
  }

  /** Takes the completions that have come. */
  takeCompletions(): OurCompletion[] {
    const taken: OurCompletion[] = [];
    for (let entry = this.cq.poll(); entry !== undefined; entry = this.cq.poll()) {
      taken.push({ ...entry, id: this.ids[entry.wrId] ?? '' });
    }
    return taken;
  }

  /** Runs a command that is none of those with functions of their own. */
  execute({ name, words, answers, place }: CommandText): void {
    const hasFailed = answers.some((answer) => answer.startsWith('ERR'));
    switch (name) {
      case 'connect':
      case 'init':
      case 'rtr':
      case 'rts':
        this.adopt(words, place, name);
        this.connect(answers);
        return;
      case 'modify': {
        const state = states[words.text('state') ?? ''];
        if (!hasFailed && state !== undefined) this.modify({ state });
        return;
      }
      case 'mr':
        if (!hasFailed) this.memory.add(regionSetup(parseRegion(answers[0] ?? '', place), words));
        return;
      case 'dereg':
        if (!hasFailed) this.memory.drop(words.number('id', 1));
        return;
      case 'mw':
        if (!hasFailed) this.memory.allocateWindow(words.number('id'), answers[0] ?? '', place);
        return;
      case 'fill':
        if (!hasFailed && this.memory.has(words)) {
          this.memory.write(words, pattern(words.number('seed'), words.number('len')));
        }
        return;
      case 'poke':
        if (!hasFailed) this.memory.write(words, bytesOfHex(words.text('hex') ?? ''));
        return;
      default:
        // info, query, async, counters, advise, sleep, quit: nothing that shows on the wire.
        return;
    }
  }

  /** Posts request `i` of a post command; `said` are the lines that it answered. */
  post({ words, place, answers }: CommandText, i: number): void {
    const op = words.text('op') as string;
    const opcode = operations[op] as number;
    const isAtomic = opcode === WR_ATOMIC_CMP_AND_SWP || opcode === WR_ATOMIC_FETCH_AND_ADD;
    const length = words.number('len', isAtomic ? 8 : 0);
    const posted = answers.filter((answer) => answer.startsWith('POSTED'))[i] as string;
    const request: Omit<SendRequest, 'sges'> = {
      opcode,
      wrId: this.nameOf(posted, place),
      flags:
        (words.number('sig', 1) !== 0 ? SEND_SIGNALED : 0) |
        (words.number('fence') !== 0 ? SEND_FENCE : 0) |
        (words.number('sol') !== 0 ? SEND_SOLICITED : 0) |
        (words.number('inline') !== 0 ? SEND_INLINE : 0),
      rkey: words.number('rkey') >>> 0,
      remoteAddress: words.number('raddr'),
    };
    switch (opcode) {
      case WR_FLUSH:
        this.send({
          ...request,
          flush: {
            length,
            placement: words.number('ftype', FLUSH_GLOBAL),
            selectivity: words.number('level'),
          },
        });
        return;
      case WR_ATOMIC_WRITE:
        this.atomicWrite(request, words.big('val'));
        return;
      case WR_BIND_MW:
        this.bind(request, words, answers.filter((answer) => answer.startsWith('MW '))[i], place);
        return;
      case WR_LOCAL_INV:
        this.send({
          ...request,
          invalidateRkey: this.memory.keys.toOurs(words.number('inv') >>> 0),
        });
        return;
      default: {
        const hasBuffer = length > 0 || words.number('sges') !== 0;
        const { remoteQpn, qkey } = this.connection;
        const ah = { pd: this.pd, dlid: PEER_LID };
        this.send({
          ...request,
          remoteAddress: words.number('raddr') + (isAtomic ? 0 : i * words.number('rstep')),
          sges: hasBuffer ? this.memory.buffer(words, i, length) : [],
          ...(isAtomic && {
            compareAdd: split(
              opcode === WR_ATOMIC_FETCH_AND_ADD ? words.big('add', 1n) : words.big('cmp'),
            ),
            swap: split(words.big('swap')),
          }),
          ...(opcode === WR_SEND_WITH_INV
            ? { invalidateRkey: words.number('inv') >>> 0 }
            : { immediate: words.number('imm') >>> 0 }),
          ...(this.setup.type === QPT_UD && {
            datagram: { ah, remoteQpn, remoteQkey: qkey },
          }),
        });
      }
    }
  }

  /** Posts receive `i` of a recv command. */
  receive({ words, place, answers }: CommandText, i: number): void {
    const posted = answers.filter((answer) => answer.startsWith('POSTED'))[i] as string;
    const length = words.number('len');
    const sges = length > 0 ? this.memory.buffer(words, i, length) : [];
    this.receiveBytes.push(length);
    const request = { wrId: this.nameOf(posted, place), sges };
    this.stage.run('post_recv', this.stage.host.verbs.postRecv(this.qp, request));
  }

  /** Moves the queue pair to ERR, as the captured one did by itself. */
  fail(): void {
    this.modify({ state: QPS_ERR });
  }

  /** Posts a receive of a tool: anything it was sent fits. */
  receiveAnything(): void {
    const { lkey, address } = this.memory.scratch;
    const request = {
      wrId: this.ids.push('') - 1,
      sges: [{ address, length: this.scratchBytes, lkey }],
    };
    this.stage.run('post_recv', this.stage.host.verbs.postRecv(this.qp, request));
  }

  private send(request: SendRequest): void {
    this.stage.run('post_send', this.stage.host.verbs.postSend(this.qp, request));
  }

  /** The operand lies in memory of ours; the captured program had it inline. */
  private atomicWrite(request: Omit<SendRequest, 'sges'>, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    this.stage.run('operand', this.stage.host.mm.write(SCRATCH_ADDRESS, bytes));
    const sges = [{ address: SCRATCH_ADDRESS, length: 8, lkey: this.memory.scratch.lkey }];
    this.send({ ...request, flags: request.flags | SEND_INLINE, sges });
  }

  private bind(
    request: Omit<SendRequest, 'sges'>,
    words: Words,
    answer: string | undefined,
    place: string,
  ): void {
    const bound = answer === undefined ? undefined : this.memory.rebind(words, answer, place);
    if (bound === undefined) {
      throw new Failure('E_SETUP_INVALID', 'a window or region was never made', place);
    }
    this.send({
      ...request,
      rkey: bound.rkey,
      remoteAddress: 0,
      sges: [bound.range],
      bindAccess: accessOf(words.text('access') ?? WINDOW_ACCESS),
    });
  }

  /** Gives the next work request a number and remembers what it was called. */
  private nameOf(posted: string, place: string): number {
    return this.ids.push(new Words(posted, place).text('id') ?? '') - 1;
  }

  /** Takes over what a command says of the connection; rcpeer reads all of it from each command. */
  private adopt(words: Words, place: string, name: string): void {
    const said = connectionSetup(words, place);
    const { qkey, remoteQpn, remoteGid } = this.connection;
    const isPath = name === 'connect' || name === 'rtr';
    this.connection = {
      ...said,
      qkey: words.has('qkey') ? said.qkey : qkey,
      remoteQpn: isPath ? said.remoteQpn : remoteQpn,
      remoteGid: isPath ? said.remoteGid : remoteGid,
    };
  }

  /** Makes the transitions that the captured queue pair made. */
  private connect(answers: readonly string[]): void {
    const { connection: c, setup } = this;
    const isRc = setup.type === QPT_RC;
    const isUd = setup.type === QPT_UD;
    for (const answer of answers) {
      if (answer === 'QP INIT') {
        this.modify({
          state: QPS_INIT,
          pkeyIndex: 0,
          port: 1,
          ...(isUd ? { qkey: c.qkey } : { access: c.access }),
        });
      } else if (answer === 'QP RTR') {
        this.modify({
          state: QPS_RTR,
          ...(!isUd && {
            destLid: PEER_LID,
            mtuBytes: c.mtu,
            destQpn: c.remoteQpn,
            receivePsn: c.receivePsn,
          }),
          ...(isRc && {
            maxDestRdAtomic: Math.min(RD_ATOMIC_MAX, c.maxDestRdAtomic),
            minRnrTimer: c.minRnrTimer,
          }),
        });
      } else if (answer === 'QP RTS') {
        this.modify({
          state: QPS_RTS,
          sendPsn: setup.sendPsn,
          ...(isRc && {
            timeout: c.timeout,
            retryCnt: c.retry,
            rnrRetry: c.rnrRetry,
            maxRdAtomic: Math.min(RD_ATOMIC_MAX, c.maxRdAtomic),
          }),
        });
      }
    }
  }

  private modify(changes: Parameters<Stage['host']['verbs']['modifyQp']>[1]): void {
    this.stage.run('modify_qp', this.stage.host.verbs.modifyQp(this.qp, changes));
  }
}

/** What rcpeer's fill command writes. */
export function pattern(seed: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (seed + 7 * i + 13 * (i >> 8)) & 255);
}

/** Bytes of hexadecimal text, as far as it is that. */
export function bytesOfHex(text: string): Uint8Array {
  const pairs = /^(?:[0-9a-fA-F]{2})*/.exec(text)?.[0].match(/../g) ?? [];
  return Uint8Array.from(pairs, (pair) => Number.parseInt(pair, 16));
}

function split(value: bigint): NonNullable<SendRequest['swap']> {
  return [Number(value >> 32n), Number(value & 0xffffffffn)];
}
