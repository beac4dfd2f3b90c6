/** The judge of the sweep sees what it should: outcomes that were tampered with are not let pass. */
import { expect, it } from 'vitest';
import { CQE_RECEIVE, WC_RETRY_EXC_ERR } from '../../transport/index.ts';
import type { BareCompletion } from '../fixtures/bare-host.ts';
import { type Operation, TARGET } from './sweep-cells.ts';
import { judge } from './sweep-oracle.ts';
import { drawPlan } from './sweep-plan.ts';
import { type Outcome, runPlan } from './sweep-run.ts';

interface Side {
  completions: BareCompletion[];
  target: Uint8Array;
  landed: Uint8Array;
  isSourceIntact: boolean;
}

/** A cell that went well. */
function good(operation: Operation): { plan: ReturnType<typeof drawPlan>; outcome: Outcome } {
  const plan = drawPlan({
    seed: 5,
    operation,
    faultName: 'no faults',
    faults: { lossPpm: 0 },
    mtu: 512,
    isOnDemand: false,
  });
  return { plan, outcome: runPlan(plan) };
}

const isReceive = (c: BareCompletion): boolean => (c.flags & CQE_RECEIVE) !== 0;
const firstWritten = ({ landed }: Side): number => landed.indexOf(1);

const tamperings: [string, Operation, (side: Side) => void][] = [
  ['a byte of another value', 'RDMA_WRITE', (s) => (s.target[firstWritten(s)] ^= 1)],
  ['a byte that did not come', 'RDMA_WRITE', (s) => (s.landed[firstWritten(s)] = 0)],
  ['a byte that came twice', 'SEND', (s) => (s.landed[firstWritten(s)] = 2)],
  ['a byte in nobody’s place', 'RDMA_READ', (s) => (s.landed[s.landed.indexOf(0, 64)] = 1)],
  ['SOURCE that has changed', 'RDMA_READ', (s) => (s.isSourceIntact = false)],
  ['a completion that is missing', 'RDMA_WRITE', (s) => s.completions.pop()],
  ['a completion that came twice', 'RDMA_READ', (s) => s.completions.push(s.completions[0]!)],
  ['completions out of order', 'RDMA_READ', (s) => s.completions.reverse()],
  ['a failure without a cause', 'SEND', (s) => (s.completions.at(-1)!.status = WC_RETRY_EXC_ERR)],
  ['a receive that came twice', 'SEND', (s) => s.completions.push(s.completions.find(isReceive)!)],
  ['a wrong length', 'SEND', (s) => s.completions.find(isReceive)!.bytes++],
  ['a wrong immediate', 'SEND_WITH_IMM', (s) => s.completions.find(isReceive)!.immediate++],
  ['a wrong opcode', 'RDMA_WRITE', (s) => s.completions[0]!.opcode++],
];

it.each(tamperings)('%s', (_, operation, tamper) => {
  const { plan, outcome } = good(operation);
  expect(judge(plan, outcome).complaints).toEqual([]);
  tamper(outcome.sides[0] as unknown as Side);
  expect(judge(plan, outcome).complaints).not.toEqual([]);
});

it.each(['CMP_AND_SWP', 'FETCH_AND_ADD', 'ATOMIC_WRITE'] as const)(
  'a cell with another value: %s',
  (operation) => {
    const { plan, outcome } = good(operation);
    expect(judge(plan, outcome).complaints).toEqual([]);
    const { cell } = plan.sides[1].queues[0] ?? { cell: 0 };
    const { target } = outcome.sides[0];
    target[cell - TARGET] = (target[cell - TARGET] as number) ^ 1;
    expect(judge(plan, outcome).complaints).not.toEqual([]);
  },
);
