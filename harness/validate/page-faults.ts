/**
 * What a page fault of the adapter costs, and an invalidation: NPF figure 3 and ISPASS.
 */
import { type HcaProfile, profiles } from '../../hca/index.ts';
import {
  defaultHostCosts,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type Sim,
} from '../../kernel/index.ts';
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_ON_DEMAND,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  SEND_SIGNALED,
  US,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
} from '../../transport/index.ts';
import { connectRc } from '../experiments/connect.ts';
import { Stage } from '../experiments/stage.ts';
import type { Figure } from './figure.ts';

const BASE = 0x7f0000000000;
/** Code of the RNR NAK timer, as verbs have it. */
const RNR_TIMER_1_28_MS = 14;
const MIB = 2 ** 20;
const ACCESS = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE | ACCESS_REMOTE_READ;
const NPF = 'Lesokhin et al., Page Fault Support for Network Controllers, ASPLOS 2017, figure 3';
const ISPASS = 'Fukuoka, Sato, Taura, Pitfalls of InfiniBand with ODP, ISPASS 2021';

/** Which side registers on demand, what it does, and where its pages are. */
interface Transfer {
  readonly profile: string;
  readonly opcode: number;
  readonly bytes: number;
  /** Host whose region is on demand. */
  readonly onDemand: 0 | 1;
  /** Whether its process has the pages present, or has never touched them. */
  readonly touched: boolean;
}

/** Microseconds that the first transfer takes longer than the second one of the same bytes. */
function faultUs({ profile, opcode, bytes, onDemand, touched }: Transfer): number {
  const stage = new Stage({
    hosts: 2,
    profile: profiles[profile] as HcaProfile,
    host: { memoryBytes: bytes * 2 + 64 * MIB },
  });
  const spans: number[] = [];
  const pages = bytes / PAGE_BYTES;
  let target = { rkey: 0, address: BASE };
  const side = (index: 0 | 1) =>
    function* (): Sim<void> {
      const host = stage.hosts[index] as (typeof stage.hosts)[number];
      const { mm, verbs } = host;
      yield* mm.mmap(BASE, bytes, PROT_READ | PROT_WRITE);
      if (index !== onDemand) yield* mm.touch(BASE, pages, true);
      const pd = yield* verbs.allocPd();
      const flag = index === onDemand ? ACCESS_ON_DEMAND : 0;
      const region = yield* verbs.regMr(pd, BASE, bytes, ACCESS | flag);
      if (index === onDemand && touched) yield* mm.touch(BASE, pages, true);
      const cq = yield* verbs.createCq(16);
      const qp = yield* verbs.createQp(pd, { sendCq: cq, recvCq: cq, maxSendWr: 4, maxRecvWr: 4 });
      yield* connectRc(host, qp, {
        destLid: 2 - index,
        destQpn: qp.qpn,
        minRnrTimer: RNR_TIMER_1_28_MS,
      });
      if (index === 1) {
        target = { rkey: region.rkey, address: BASE };
        return;
      }
      // The other side is ready by then.
      yield* host.sleep(1_000_000 * US);
      for (let round = 0; round < 2; round++) {
        const startPs = host.node.now;
        yield* verbs.postSend(qp, {
          wrId: round,
          opcode,
          flags: SEND_SIGNALED,
          sges: [{ address: BASE, length: bytes, lkey: region.lkey }],
          rkey: target.rkey,
          remoteAddress: target.address,
        });
        yield* cq.next();
        spans.push((host.node.now - startPs) / US);
      }
    };
  stage.run(side(0)(), side(1)());
  const [first, second] = spans as [number, number];
  return first - second;
}

/** Microseconds that munmap takes longer where an on-demand region has the pages. */
function invalidationUs(pages: number): number {
  const bytes = pages * PAGE_BYTES;
  const stage = new Stage({ adapters: true, profile: profiles['connect-ib'] as HcaProfile });
  const { mm, verbs, node } = stage.host;
  let span = 0;
  stage.run(
    (function* (): Sim<void> {
      const pd = yield* verbs.allocPd();
      yield* mm.mmap(BASE, bytes, PROT_READ | PROT_WRITE);
      yield* mm.touch(BASE, pages, true);
      yield* verbs.regMr(pd, BASE, bytes, ACCESS_LOCAL_WRITE | ACCESS_ON_DEMAND);
      const startPs = node.now;
      yield* mm.munmap(BASE, bytes);
      const { systemCallPs, vmaChangePs, unmapPagePs } = defaultHostCosts;
      span = (node.now - startPs - systemCallPs - vmaChangePs - pages * unmapPagePs) / US;
    })(),
  );
  return span;
}

const send = { profile: 'connect-ib', opcode: WR_RDMA_WRITE, onDemand: 0, touched: true } as const;
const faultParameters = [
  'faultRaisePs',
  'faultRaisePerPagePs',
  'faultPs',
  'faultPagePs',
  'tableUpdatePs',
  'tableUpdatePagePs',
  'faultResumePs',
];
const invalidationParameters = [
  'invalidateCheckPs',
  'invalidateCheckPagePs',
  'invalidateUpdatePs',
  'invalidateUpdatePagePs',
  'invalidateBookPs',
  'invalidateBookPagePs',
];

function npf(figure: string, published: number, parameters: string[], model: () => number): Figure {
  return {
    figure,
    source: NPF,
    grade: 'F',
    unit: 'us',
    from: 'plot',
    role: 'calibrated',
    parameters,
    published,
    model,
  };
}

export const pageFaultFigures: readonly Figure[] = [
  npf('page fault of a send, 4 KiB', 219.4, faultParameters, () =>
    faultUs({ ...send, bytes: PAGE_BYTES }),
  ),
  npf('page fault of a send, 4 MiB', 356.2, faultParameters, () =>
    faultUs({ ...send, bytes: 4 * MIB }),
  ),
  npf('invalidation of 4 KiB that the adapter has', 16.9, invalidationParameters, () =>
    invalidationUs(1),
  ),
  npf('invalidation of 4 MiB that the adapter has', 60.9, invalidationParameters, () =>
    invalidationUs(1024),
  ),
  {
    figure: 'READ from a missing page of the responder, RNR timer 1.28 ms',
    source: ISPASS,
    grade: 'S',
    unit: 'us',
    from: 'table',
    role: 'calibrated',
    parameters: ['rnrWaitPercent'],
    published: 4500,
    model: () =>
      faultUs({
        profile: 'connectx-4',
        opcode: WR_RDMA_READ,
        bytes: PAGE_BYTES,
        onDemand: 1,
        touched: false,
      }),
  },
];
