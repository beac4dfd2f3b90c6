/** Completions of ours against the WC lines of the text. */
import {
  CQE_RECEIVE,
  CQE_WITH_IMMEDIATE,
  CQE_WITH_INVALIDATE,
  QPT_UD,
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
} from '../../transport/index.ts';
import { excuseStatus, type Situation } from './excuses.ts';
import type { OurCompletion, Program } from './program.ts';
import type { Words } from './rcpeer-text.ts';
import { type Rule, rules } from './rxe-profile.ts';

/** rcpeer's names of completion opcodes. */
const names: Readonly<Record<number, string>> = {
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
/** Opcodes whose byte length verbs define; of others the field means nothing. */
const COUNTED: readonly number[] = [
  WC_RDMA_READ,
  WC_COMP_SWAP,
  WC_FETCH_ADD,
  WC_RECV,
  WC_RECV_RDMA_WITH_IMM,
];

/** IB_WC_WITH_INVALIDATE of the kernel; verbs have 8. */
const KERNEL_WITH_INVALIDATE = 4;

export function isOfReceive({ flags }: OurCompletion): boolean {
  return (flags & CQE_RECEIVE) !== 0;
}

/**
 * The completion of ours that a WC line is about: the oldest of its queue. A failed one does not say
 * which queue it is of; its name does.
 */
export function pickCompletion(
  completions: readonly OurCompletion[],
  words: Words,
): OurCompletion | undefined {
  const op = words.text('op');
  const sent = completions.find((completion) => !isOfReceive(completion));
  const received = completions.find(isOfReceive);
  if (op !== undefined) return op.startsWith('recv') ? received : sent;
  const id = words.text('id');
  return [sent, received].find((completion) => completion?.id === id);
}

/**
 * How a completion of ours differs from a WC line: not at all (undefined), by a rule, or as the text
 * says that is returned.
 */
export function compareCompletion(
  ours: OurCompletion,
  words: Words,
  line: string,
  program: Program,
  situation: Situation,
): Rule | string | undefined {
  const differ = (what: string, there: unknown, here: unknown): string =>
    `completion '${line}': ${what} is ${there} there, ${here} here`;
  const status = words.number('status');
  if (words.text('id') !== ours.id) return differ('id', words.text('id'), ours.id);
  if (status !== ours.status) {
    return excuseStatus(ours, status, situation) ?? differ('status', status, ours.status);
  }
  if (status !== WC_SUCCESS) return undefined;
  const op = words.text('op');
  const opHere = names[ours.opcode] ?? `${ours.opcode}`;
  if (op !== opHere) return differ('opcode', op, opHere);
  const length = words.number('len');
  if (COUNTED.includes(ours.opcode) && length !== ours.byteLen) {
    return differ('length', length, ours.byteLen);
  }
  if (!isOfReceive(ours)) return undefined;
  const immediate = (ours.flags & CQE_WITH_IMMEDIATE) !== 0 ? ours.immediate >>> 0 : undefined;
  const immediateThere = words.has('imm') ? words.number('imm') : undefined;
  if (immediate !== immediateThere) return differ('immediate', immediateThere, immediate);
  const isInvalidated = (ours.flags & CQE_WITH_INVALIDATE) !== 0;
  const key = isInvalidated ? program.memory.keys.toCaptured(ours.immediate >>> 0) : undefined;
  const isKernelFlag = !words.has('inv') && (words.number('flags') & KERNEL_WITH_INVALIDATE) !== 0;
  if (isInvalidated && isKernelFlag) return rules.INVALIDATE_FLAG;
  const keyThere = words.has('inv') ? words.number('inv') : undefined;
  if (key !== keyThere) return differ('invalidated key', keyThere, key);
  if (situation.flow.setup.type === QPT_UD && words.number('src_qp') !== ours.srcQp) {
    return differ('source QPN', words.number('src_qp'), ours.srcQp);
  }
  return undefined;
}
