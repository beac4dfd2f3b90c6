/** The no-hole class (IBM eHCA): pinned registration works, and whatever needs a hole is refused. */
import { describe, expect, it } from 'vitest';
import { profiles } from '../../hca/index.ts';
import { SystemCallError } from '../../kernel/errno.ts';
import {
  type Errno,
  type HostProcess,
  type MemoryRegion,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  VerbsError,
} from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ADVICE_PREFETCH,
  ADVISE_FLUSH,
  SEND_SIGNALED,
  SIZE_MAX,
  WC_SUCCESS,
  WR_RDMA_WRITE,
} from '../../transport/index.ts';
import { ALL_RIGHTS, BASE, HostPair, PAGE } from '../fixtures/host-pair.ts';
import { type Endpoint, endpoint, join } from '../fixtures/loopback.ts';

const RW = PROT_READ | PROT_WRITE;
const ON_DEMAND = ACCESS_LOCAL_WRITE | ACCESS_ON_DEMAND;
const profile = profiles.ehca;

/** Runs `story` with a process that has mapped and registered a page, pinned. */
function tell(story: (end: Endpoint, mr: MemoryRegion, pair: HostPair) => Sim<void>): void {
  const pair = new HostPair({ profile });
  const process = pair.a.processes[0] as HostProcess;
  const done = pair.run(
    (function* (): Sim<void> {
      const end = yield* endpoint(process);
      yield* process.mm.mmap(BASE, 4 * PAGE, RW);
      yield* process.mm.fill(BASE, 4 * PAGE, 1);
      const mr = yield* process.verbs.regMr(end.pd, BASE, 2 * PAGE, ALL_RIGHTS);
      yield* story(end, mr, pair);
      yield* process.verbs.deregMr(mr);
    })(),
  );
  expect(done).toBe(true);
  pair.checkLeaks();
}

describe('an adapter whose regions may have no holes', () => {
  it('works on pinned memory', () => {
    tell(function* (from, mr, pair): Sim<void> {
      const to = yield* endpoint(pair.a.createProcess('other'));
      yield* join(from, to, 1);
      yield* to.process.mm.mmap(BASE, 2 * PAGE, RW);
      const target = yield* to.process.verbs.regMr(to.pd, BASE, 2 * PAGE, ALL_RIGHTS);
      yield* from.process.verbs.postSend(from.qp, {
        opcode: WR_RDMA_WRITE,
        wrId: 1,
        flags: SEND_SIGNALED,
        sges: [{ address: BASE, length: 2 * PAGE, lkey: mr.lkey }],
        remoteAddress: BASE,
        rkey: target.rkey,
      });
      expect((yield* from.cq.next()).status).toBe(WC_SUCCESS);
      expect(to.process.mm.hash(BASE, 2 * PAGE)).toBe(from.process.mm.hash(BASE, 2 * PAGE));
      // The mapping may go: the region keeps its pages, because it could not be told otherwise.
      yield* to.process.mm.munmap(BASE, 2 * PAGE);
      expect(to.process.mm.pinnedBytes).toBe(2 * PAGE);
      yield* to.process.exit();
    });
  });

  const refusals: {
    what: string;
    errno: Errno;
    attempt: (end: Endpoint, mr: MemoryRegion) => Sim<unknown>;
  }[] = [
    {
      what: 'on-demand registration',
      errno: 'EOPNOTSUPP',
      attempt: ({ process, pd }) => process.verbs.regMr(pd, BASE, PAGE, ON_DEMAND),
    },
    {
      what: 'implicit registration',
      errno: 'EOPNOTSUPP',
      attempt: ({ process, pd }) => process.verbs.regMr(pd, 0, SIZE_MAX, ON_DEMAND),
    },
    {
      what: 'prefetching',
      errno: 'EOPNOTSUPP',
      attempt: ({ process, pd }, { lkey }) =>
        process.verbs.adviseMr(pd, ADVICE_PREFETCH, ADVISE_FLUSH, [
          { address: BASE, length: PAGE, lkey },
        ]),
    },
    {
      what: 'other rights',
      errno: 'EOPNOTSUPP',
      attempt: ({ process }, mr) => process.verbs.reregMr(mr, { access: ACCESS_LOCAL_WRITE }),
    },
    {
      what: 'another range',
      errno: 'EOPNOTSUPP',
      attempt: ({ process }, mr) =>
        process.verbs.reregMr(mr, { range: { address: BASE + PAGE, length: PAGE } }),
    },
  ];

  it.each(refusals)('refuses $what, and says why', ({ errno, attempt }) => {
    tell(function* (end, mr): Sim<void> {
      let thrown: unknown;
      try {
        yield* attempt(end, mr);
      } catch (error) {
        thrown = error;
      }
      expect(thrown).toBeInstanceOf(VerbsError);
      expect((thrown as VerbsError).errno).toBe(errno);
      expect((thrown as VerbsError).message).toMatch(/may have no holes and cannot be changed/);
    });
  });

  it('has memory hot-plug refused while its driver is loaded; other adapters do not mind', () => {
    const { memoryNotifiers } = new HostPair({ profile }).a;
    for (const action of ['going online', 'going offline'] as const) {
      const veto = memoryNotifiers.ask(action, 0, 32_768);
      expect(veto?.name).toBe('ehca');
      expect(veto?.reason).toContain(action);
    }
    expect(new HostPair().a.memoryNotifiers.ask('going offline', 0, 32_768)).toBeUndefined();
  });

  it('keeps its memory when that is to be unplugged, whether or not anything is pinned', () => {
    const pair = new HostPair({ profile, host: { memoryNodes: 2 } });
    const { hotplug } = pair.a.ram;
    let thrown: unknown;
    pair.run(
      (function* (): Sim<void> {
        try {
          yield* hotplug.offline(hotplug.rangeOfNode(1));
        } catch (error) {
          thrown = error;
        }
      })(),
    );
    expect(thrown).toBeInstanceOf(SystemCallError);
    expect((thrown as SystemCallError).errno).toBe('EBUSY');
    expect((thrown as SystemCallError).message).toMatch(/ehca refuses: memory going offline/);
  });
});
