/**
 * Checks what the work requests of an operation look like, by themselves and for their queue pair.
 * Every problem is a Failure E_SCENARIO_INVALID.
 */
import { MAX_INLINE_BYTES } from '../../transport/index.ts';
import { consumesReceive, isOnWord, isSend, type OperationKind } from './operation-schema.ts';
import { invalid } from './problem.ts';
import type { OperationSpec, QueuePairSpec, Scenario } from './schema.ts';

/** Kinds that queue pairs of the other services have, too. */
const kindsOf: Readonly<Record<'UC' | 'UD', readonly OperationKind[]>> = {
  UC: ['write', 'writeImm', 'send', 'sendImm'],
  UD: ['send', 'sendImm'],
};
const INLINE_KINDS: readonly OperationKind[] = [
  'write',
  'writeImm',
  'send',
  'sendImm',
  'sendInv',
  'atomicWrite',
];
const FLUSH_KINDS: readonly OperationKind[] = ['write', 'writeImm', 'atomicWrite'];
const WORD_BYTES = 8;

/** What a work request looks like, and whether its queue pair takes it. */
export function checkShape(
  operation: OperationSpec,
  { type }: QueuePairSpec,
  mtu: number,
  path: string,
): void {
  const { kind, sizeBytes, inline, solicited, flush, depth, signalEvery } = operation;
  if (type !== 'RC' && !kindsOf[type].includes(kind)) {
    throw invalid(`${path}.kind`, `a ${type} queue pair has no ${kind}`, kindsOf[type].join(', '));
  }
  if (type === 'UD' && sizeBytes > mtu) {
    throw invalid(`${path}.size`, 'a datagram is one packet', `at most ${mtu}B, the mtu`);
  }
  if (isOnWord(kind)) {
    if (sizeBytes !== WORD_BYTES) {
      throw invalid(`${path}.size`, `${kind} works on a word`, `${WORD_BYTES}B, or nothing`);
    }
    if (operation.target.offsetBytes % WORD_BYTES !== 0) {
      throw invalid(`${path}.target.offset`, 'not a word', `a multiple of ${WORD_BYTES}B`);
    }
    if (operation.strideBytes % WORD_BYTES !== 0) {
      throw invalid(`${path}.stride`, 'words do not overlap', `a multiple of ${WORD_BYTES}B`);
    }
  }
  if (inline && (!INLINE_KINDS.includes(kind) || sizeBytes > MAX_INLINE_BYTES)) {
    throw invalid(
      `${path}.inline`,
      `${sizeBytes} bytes of a ${kind} do not fit a work request`,
      `at most ${MAX_INLINE_BYTES}B of ${INLINE_KINDS.join(', ')}`,
    );
  }
  if (solicited && !consumesReceive(kind)) {
    throw invalid(
      `${path}.solicited`,
      `a ${kind} completes nothing at the target`,
      'a send, writeImm',
    );
  }
  if (flush !== null && (!FLUSH_KINDS.includes(kind) || type !== 'RC')) {
    throw invalid(`${path}.flush`, 'there is nothing to flush', `${FLUSH_KINDS.join(', ')} on RC`);
  }
  if (signalEvery > depth) {
    throw invalid(
      `${path}.signalEvery`,
      `of ${depth} outstanding work requests none might be signalled`,
      'at most the depth',
    );
  }
  if (operation.sges > sizeBytes) throw tooManyPieces(`${path}.sges`, sizeBytes);
  if (operation.receiveSges > sizeBytes) throw tooManyPieces(`${path}.receiveSges`, sizeBytes);
  if (operation.receiveSges > 1 && !isSend(kind)) {
    throw invalid(`${path}.receiveSges`, `a ${kind} needs no buffer of a receive`, '1');
  }
}

function tooManyPieces(place: string, bytes: number) {
  return invalid(place, `more pieces than bytes`, `at most ${bytes}`);
}

/** Before memory is replaced what is outstanding must complete, so all of it has to be signalled. */
export function checkSignals({ operations, events }: Scenario): void {
  const replaced = new Set<string>();
  for (const event of events) {
    if (event.kind === 'remap' || event.kind === 'dontneed') replaced.add(event.region);
    if (event.kind === 'rebind') replaced.add(`window ${event.window}`);
  }
  for (const { invalidates } of operations) if (invalidates) replaced.add(`window ${invalidates}`);
  operations.forEach(({ signalEvery, source, target }, i) => {
    if (signalEvery === 1) return;
    for (const { region, window } of [source, target]) {
      if (!replaced.has(region) && !(window !== null && replaced.has(`window ${window}`))) continue;
      throw invalid(
        `operations[${i}].signalEvery`,
        'memory that it uses is replaced on the way',
        '1: every work request is signalled',
      );
    }
  });
}
