/**
 * Work requests of a control client: from its words to verbs, and from completions to its words.
 */
import {
  type Host,
  nextRkey,
  type ScatterEntry,
  type SendRequest,
  type Sim,
  type WorkCompletion,
} from '../../kernel/index.ts';
import {
  CQE_SOLICITED,
  CQE_WITH_GRH,
  CQE_WITH_IMMEDIATE,
  CQE_WITH_INVALIDATE,
  EVENT_COMM_EST,
  EVENT_CQ_ERR,
  EVENT_QP_ACCESS_ERR,
  EVENT_QP_FATAL,
  EVENT_QP_LAST_WQE_REACHED,
  EVENT_QP_REQ_ERR,
  EVENT_SQ_DRAINED,
  EVENT_SRQ_ERR,
  EVENT_SRQ_LIMIT_REACHED,
  QPT_UD,
  SEND_FENCE,
  SEND_INLINE,
  SEND_SIGNALED,
  SEND_SOLICITED,
  WC_ATOMIC_WRITE,
  WC_BIND_MW,
  WC_COMP_SWAP,
  WC_FETCH_ADD,
  WC_FLUSH,
  WC_LOCAL_INV,
  WC_RDMA_READ,
  WC_RDMA_WRITE,
  WC_RECV,
  WC_RECV_RDMA_WITH_IMM,
  WC_SEND,
  WC_SUCCESS,
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
  wcStatusName,
} from '../../transport/index.ts';
import type { ClientPair, ClientResources, Reply } from './client-resources.ts';
import type { CommandOf } from './control-protocol.ts';

const opcodeOf: Readonly<Record<CommandOf<'post'>['op'], number>> = {
  send: WR_SEND,
  sendimm: WR_SEND_WITH_IMM,
  sendinv: WR_SEND_WITH_INV,
  write: WR_RDMA_WRITE,
  writeimm: WR_RDMA_WRITE_WITH_IMM,
  read: WR_RDMA_READ,
  cas: WR_ATOMIC_CMP_AND_SWP,
  faa: WR_ATOMIC_FETCH_AND_ADD,
  awrite: WR_ATOMIC_WRITE,
  flush: WR_FLUSH,
  inv: WR_LOCAL_INV,
  bind: WR_BIND_MW,
};

const completionName: Readonly<Record<number, string>> = {
  [WC_SEND]: 'send',
  [WC_RDMA_WRITE]: 'write',
  [WC_RDMA_READ]: 'read',
  [WC_COMP_SWAP]: 'cas',
  [WC_FETCH_ADD]: 'faa',
  [WC_BIND_MW]: 'bind',
  [WC_LOCAL_INV]: 'inv',
  [WC_FLUSH]: 'flush',
  [WC_ATOMIC_WRITE]: 'awrite',
  [WC_RECV]: 'recv',
  [WC_RECV_RDMA_WITH_IMM]: 'recv_write_imm',
};

const eventNames: Readonly<Record<number, string>> = {
  [EVENT_CQ_ERR]: 'IBV_EVENT_CQ_ERR',
  [EVENT_QP_FATAL]: 'IBV_EVENT_QP_FATAL',
  [EVENT_QP_REQ_ERR]: 'IBV_EVENT_QP_REQ_ERR',
  [EVENT_QP_ACCESS_ERR]: 'IBV_EVENT_QP_ACCESS_ERR',
  [EVENT_COMM_EST]: 'IBV_EVENT_COMM_EST',
  [EVENT_SQ_DRAINED]: 'IBV_EVENT_SQ_DRAINED',
  [EVENT_SRQ_ERR]: 'IBV_EVENT_SRQ_ERR',
  [EVENT_SRQ_LIMIT_REACHED]: 'IBV_EVENT_SRQ_LIMIT_REACHED',
  [EVENT_QP_LAST_WQE_REACHED]: 'IBV_EVENT_QP_LAST_WQE_REACHED',
};

/** The name of an asynchronous event as verbs have it. */
export function eventName(event: number): string {
  return eventNames[event] ?? `IBV_EVENT_${event}`;
}

/** Posts what a `post` command asks for: `n` work requests. */
export function* sendsOf(
  host: Host,
  resources: ClientResources,
  command: CommandOf<'post'>,
  lid: number,
): Sim<Reply> {
  const pair = resources.pair(command.qp);
  const wrids: number[] = [];
  let rkey: number | undefined;
  for (let i = 0; i < command.n; i++) {
    const wrId = resources.nameWork(command.wrid, i);
    const request = yield* sendOf(host, resources, pair, command, lid, wrId, i);
    yield* host.verbs.postSend(pair.qp, request);
    if (request.opcode === WR_BIND_MW) {
      const window = resources.window(command.mw);
      window.rkey = nextRkey(window.rkey);
      rkey = window.rkey >>> 0;
    }
    wrids.push(wrId);
  }
  return { wrids, ...(rkey === undefined ? {} : { rkey }) };
}

/** Posts what a `recv` command asks for. */
export function* receivesOf(
  { verbs }: Host,
  resources: ClientResources,
  command: CommandOf<'recv'>,
): Sim<Reply> {
  const srq = command.srq === undefined ? undefined : resources.srq(command.srq);
  const wrids: number[] = [];
  for (let i = 0; i < command.n; i++) {
    const wrId = resources.nameWork(command.wrid, i);
    const offset = command.off + i * command.step;
    const request = { wrId, sges: entriesOf(resources, command, offset, command.len) };
    if (srq !== undefined) yield* verbs.postSrqRecv(srq, request);
    else yield* verbs.postRecv(resources.pair(command.qp).qp, request);
    wrids.push(wrId);
  }
  return { wrids };
}

/** A completion in the words of `rcpeer`. */
export function completionReply(work: WorkCompletion): Reply {
  const { wrId, status, opcode, byteLen, immediate, flags, srcQp, slid } = work;
  const name = wcStatusName[status] ?? `${status}`;
  if (status !== WC_SUCCESS) return { wrid: wrId, status, name };
  return {
    wrid: wrId,
    status,
    name,
    op: completionName[opcode] ?? `${opcode}`,
    len: byteLen,
    src: srcQp,
    slid,
    ...(flags & CQE_WITH_IMMEDIATE ? { imm: immediate >>> 0 } : {}),
    ...(flags & CQE_WITH_INVALIDATE ? { inv: immediate >>> 0 } : {}),
    ...(flags & CQE_WITH_GRH ? { grh: true } : {}),
    ...(flags & CQE_SOLICITED ? { sol: true } : {}),
  };
}

/** Work request number `i` of a `post` command. */
function* sendOf(
  { mm, verbs }: Host,
  resources: ClientResources,
  pair: ClientPair,
  command: CommandOf<'post'>,
  lid: number,
  wrId: number,
  i: number,
): Sim<SendRequest> {
  const { op, off, step, raddr, rstep, rkey, imm, inv, cmp, swap, add, val } = command;
  const isAtomic = op === 'cas' || op === 'faa' || op === 'awrite';
  const length = command.len ?? (isAtomic ? 8 : 0);
  const offset = off + i * step;
  const opcode = opcodeOf[op];
  const flags =
    (command.sig ? SEND_SIGNALED : 0) |
    (command.fence ? SEND_FENCE : 0) |
    (command.sol ? SEND_SOLICITED : 0) |
    (command.inline ? SEND_INLINE : 0);
  const remoteAddress = raddr + i * rstep;
  const common = { opcode, wrId, flags };
  switch (op) {
    case 'inv':
      return { ...common, invalidateRkey: inv };
    case 'flush':
      return {
        ...common,
        rkey,
        remoteAddress,
        flush: { length, placement: command.ftype, selectivity: command.level },
      };
    case 'bind': {
      const window = resources.window(command.mw);
      const { region } = resources.region(command.mr);
      const sges = [{ address: region.address + offset, length, lkey: region.lkey }];
      return { ...common, rkey: nextRkey(window.rkey), sges, bindAccess: command.access };
    }
    case 'awrite':
      if (val !== undefined) {
        const bytes = new Uint8Array(8);
        new DataView(bytes.buffer).setBigUint64(0, val, true);
        yield* mm.write(resources.place(command.mr, offset, 8), bytes);
      }
      break;
    default:
  }
  const sges = entriesOf(resources, command, offset, length);
  if (pair.qp.type === QPT_UD) {
    const ah = verbs.createAh(resources.pd, lid === 0 ? pair.lid : lid);
    const remoteQpn = command.qpn ?? pair.remoteQpn;
    const remoteQkey = command.qkey ?? pair.qkey;
    return { ...common, sges, immediate: imm, datagram: { ah, remoteQpn, remoteQkey } };
  }
  return {
    ...common,
    sges,
    rkey,
    remoteAddress,
    immediate: imm,
    invalidateRkey: inv,
    compareAdd: wordsOf(op === 'faa' ? add : cmp),
    swap: wordsOf(swap),
  };
}

/** `length` bytes at `offset` of a region in `sges` pieces, as rcpeer cuts them. */
function entriesOf(
  resources: ClientResources,
  { mr, sges, lkey }: { mr: number; sges?: number | undefined; lkey?: number | undefined },
  offset: number,
  length: number,
): ScatterEntry[] {
  if (length === 0 && sges === undefined) return [];
  const count = sges ?? 1;
  const { region } = resources.region(mr);
  const piece = count === 0 ? 0 : Math.floor(length / count);
  // Not held against the region: what is beyond it is the adapter's to find.
  return Array.from({ length: count }, (_, i) => ({
    address: region.address + offset + i * piece,
    length: i === count - 1 ? length - i * piece : piece,
    lkey: lkey ?? region.lkey,
  }));
}

function wordsOf(value: bigint): [number, number] {
  return [Number(value >> 32n), Number(value & 0xffffffffn)];
}
