/** Moving pinned pages under an adapter at work: which ways lose no write, and what each stops. */
import { describe, expect, it } from 'vitest';
import type { MoveMethod, MoveReport } from '../../../kernel/driver/region-mover.ts';
import type { Sim } from '../../../kernel/index.ts';
import {
  ACCESS_ON_DEMAND,
  NEVER,
  RandomStream,
  SEND_SIGNALED,
  US,
  WC_SUCCESS,
  WR_RDMA_WRITE,
} from '../../../transport/index.ts';
import {
  ALL_RIGHTS,
  BASE,
  HostPair,
  open,
  PAGE,
  type Program,
  REGION_BYTES,
} from '../../fixtures/host-pair.ts';

const PAGES = REGION_BYTES / PAGE;
/** Writes that host a has out at a time. */
const IN_FLIGHT = 16;

interface Outcome {
  readonly report: MoveReport;
  /** Bytes of the target that are not what was written there last. */
  readonly wrongBytes: number;
  readonly nodes: Set<number>;
  readonly writes: number;
  readonly failed: number;
}

/**
 * Host a writes small pieces all over host b's region, in order, until b has moved it to its other node;
 * every `pauseUs` when given. The program of b writes its own half of each page meanwhile.
 */
function moveUnderWrites(method: MoveMethod, seed: number, pauseUs = 0): Outcome {
  const random = new RandomStream(seed, 'test', 'writes');
  const pair = new HostPair({
    seed,
    profile: { dirtyTracking: true },
    host: { memoryBytes: 2048 * PAGE, memoryNodes: 2, cpus: 4 },
  });
  const [there, here] = [new Uint8Array(REGION_BYTES), new Uint8Array(REGION_BYTES)];
  const expected = new Uint8Array(REGION_BYTES);
  let peer: Program | undefined;
  let report: MoveReport | undefined;
  let isOver = false;
  let [writes, failed] = [0, 0];
  let done = 0;
  const complete = function* ({ cq }: Program): Sim<void> {
    if ((yield* cq.next()).status !== WC_SUCCESS) failed++;
    done++;
  };
  const a = function* (): Sim<void> {
    const program = yield* open(pair.a);
    while (peer === undefined) yield* pair.a.sleep(1 * US);
    const { verbs, mm } = pair.a;
    for (let value = 1; !isOver; value++) {
      const length = 64 + random.below(400);
      const at = random.below(PAGES) * PAGE + random.below(PAGE / 2 - 512);
      const bytes = new Uint8Array(length).fill(value % 251);
      yield* mm.write(BASE + at, bytes);
      expected.set(bytes, at);
      yield* verbs.postSend(program.qp, {
        opcode: WR_RDMA_WRITE,
        wrId: value,
        flags: SEND_SIGNALED,
        sges: [{ address: BASE + at, length, lkey: program.mr.lkey }],
        remoteAddress: BASE + at,
        rkey: peer.mr.rkey,
      });
      writes++;
      if (writes - done >= IN_FLIGHT) yield* complete(program);
      if (pauseUs > 0) yield* pair.a.sleep(pauseUs * US);
    }
    while (done < writes) yield* complete(program);
  };
  const b = function* (): Sim<void> {
    const { mm } = pair.b;
    const program = yield* open(pair.b);
    yield* mm.write(BASE, new Uint8Array(REGION_BYTES));
    const owner = pair.b.spawn(
      'owner',
      (function* (): Sim<void> {
        for (let value = 1; !isOver; value++) {
          const at = random.below(PAGES) * PAGE + PAGE / 2 + random.below(PAGE / 4);
          const bytes = new Uint8Array(1 + random.below(PAGE / 4)).fill(value % 251);
          yield* mm.write(BASE + at, bytes);
          expected.set(bytes, at);
          yield* pair.b.sleep(random.below(3) * US);
        }
      })(),
    );
    peer = program;
    yield* pair.b.sleep(100 * US);
    report = yield* pair.b.verbs.moveMr(program.mr, 1, method);
    yield* pair.b.sleep(50 * US);
    isOver = true;
    yield owner.done;
  };
  expect(pair.run(a(), b(), NEVER)).toBe(true);
  there.set(pair.b.mm.read(BASE, REGION_BYTES));
  here.set(expected);
  let wrongBytes = 0;
  for (let i = 0; i < REGION_BYTES; i++) if (there[i] !== here[i]) wrongBytes++;
  const { frames } = pair.b.ram;
  const nodes = new Set<number>();
  const { pinned } = (peer as unknown as Program).mr;
  for (let page = 0; page < PAGES; page++) nodes.add(frames.nodeOf(pinned?.frameOf(page) ?? 0));
  pair.checkLeaks();
  return { report: report as unknown as MoveReport, wrongBytes, nodes, writes, failed };
}

describe('a pinned region that moves while a peer writes into it', () => {
  it.each(['retry', 'suspend', 'precopy'] as const)('loses nothing with %s', (method) => {
    for (let seed = 1; seed <= 3; seed++) {
      const { report, wrongBytes, nodes, writes, failed } = moveUnderWrites(method, seed, seed % 3);
      expect({ wrongBytes, failed, nodes: [...nodes] }).toEqual({
        wrongBytes: 0,
        failed: 0,
        nodes: [1],
      });
      expect(writes).toBeGreaterThan(20);
      expect(report.movedPages).toBe(PAGES);
      expect(report.suspendedPs > 0).toBe(method !== 'retry');
    }
  });

  it('loses writes when the retry is left out', () => {
    let wrong = 0;
    for (let seed = 1; seed <= 3; seed++) wrong += moveUnderWrites('unchecked', seed).wrongBytes;
    expect(wrong).toBeGreaterThan(0);
  });

  it('has to copy again what was written meanwhile, with retry', () => {
    let again = 0;
    for (let seed = 1; seed <= 2; seed++) {
      again += moveUnderWrites('retry', seed).report.copies - PAGES;
    }
    expect(again).toBeGreaterThan(0);
  });

  it('is stopped for a shorter time when it is copied beforehand', () => {
    for (let seed = 1; seed <= 2; seed++) {
      const whole = moveUnderWrites('suspend', seed, 2).report;
      const rest = moveUnderWrites('precopy', seed, 2).report;
      expect(rest.suspendedPs).toBeLessThan(whole.suspendedPs);
      expect(rest.copies).toBeGreaterThan(whole.copies);
    }
  });

  it('is refused for a region on demand, a node that is not there, and an adapter without a record', () => {
    const refused = (method: MoveMethod, node: number, access: number, tracks: boolean): string => {
      const pair = new HostPair({
        profile: { dirtyTracking: tracks },
        host: { memoryBytes: 2048 * PAGE, memoryNodes: 2 },
      });
      let message = 'done';
      pair.run(
        (function* (): Sim<void> {
          const { mr } = yield* open(pair.a, { access: ALL_RIGHTS | access });
          try {
            yield* pair.a.verbs.moveMr(mr, node, method);
          } catch (error) {
            message = (error as Error).message;
          }
        })(),
      );
      pair.checkLeaks();
      return message;
    };
    expect(refused('suspend', 1, ACCESS_ON_DEMAND, true)).toMatch(
      /EINVAL: not a registered pinned/,
    );
    expect(refused('suspend', 2, 0, true)).toMatch(/EINVAL: there is no node 2/);
    expect(refused('retry', 1, 0, false)).toMatch(/EOPNOTSUPP/);
    expect(refused('precopy', 1, 0, false)).toMatch(/EOPNOTSUPP/);
    expect(refused('suspend', 1, 0, false)).toBe('done');
  });
});
