/**
 * What registering memory costs, and when it is refused.
 */
import {
  defaultHostCosts,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
  type Sim,
  VerbsError,
} from '../../kernel/index.ts';
import { ACCESS_LOCAL_WRITE, US } from '../../transport/index.ts';
import { Stage } from '../experiments/stage.ts';
import type { Figure } from './figure.ts';

const BASE = 0x7f0000000000;
const KIB = 2 ** 10;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** RLIMIT_MEMLOCK of Linux before 5.16. */
const OLD_MEMLOCK_BYTES = 64 * KIB;

const UCX = 'openucx/ucx, src/uct/ib/base/ib_md.c: 16 us + 0.06 ns per byte';
const WU = 'Wu, Wyckoff, Panda, ICPP 2003: 1.10 us + 0.23 us per page';
const UCX_PARAMETERS = ['registerPs', 'registerPagePs'];

/** Microseconds of registering `bytes` that the program has touched, and of deregistering them. */
function registrationUs(bytes: number): { register: number; deregister: number } {
  const stage = new Stage({ adapters: true, host: { memoryBytes: 2 * bytes + 64 * MIB } });
  const { mm, verbs, node } = stage.host;
  let [register, deregister] = [0, 0];
  stage.run(
    (function* (): Sim<void> {
      const pd = yield* verbs.allocPd();
      yield* mm.mmap(BASE, bytes, PROT_READ | PROT_WRITE);
      yield* mm.touch(BASE, Math.ceil(bytes / PAGE_BYTES), true);
      const startPs = node.now;
      const region = yield* verbs.regMr(pd, BASE, bytes, ACCESS_LOCAL_WRITE);
      const middlePs = node.now;
      yield* verbs.deregMr(region);
      register = (middlePs - startPs) / US;
      deregister = (node.now - middlePs) / US;
    })(),
  );
  return { register, deregister };
}

/** Bytes of the largest region that a process with `memlockBytes` may register. */
function largestRegistration(memlockBytes: number): number {
  const stage = new Stage({ adapters: true, host: { memlockBytes } });
  const { mm, verbs } = stage.host;
  let largest = 0;
  stage.run(
    (function* (): Sim<void> {
      const pd = yield* verbs.allocPd();
      yield* mm.mmap(BASE, MIB, PROT_READ | PROT_WRITE);
      for (let bytes = PAGE_BYTES; bytes <= MIB; bytes += PAGE_BYTES) {
        try {
          yield* verbs.deregMr(yield* verbs.regMr(pd, BASE, bytes, ACCESS_LOCAL_WRITE));
        } catch (error) {
          if (error instanceof VerbsError && error.errno === 'ENOMEM') return;
          throw error;
        }
        largest = bytes;
      }
    })(),
  );
  return largest;
}

/** Bytes, a power of two, from which registering costs less than copying once by CPU. */
function worthRegistering(): number {
  for (let bytes = PAGE_BYTES; ; bytes *= 2) {
    const copyUs = (bytes / PAGE_BYTES) * (defaultHostCosts.fillPagePs / US);
    if (registrationUs(bytes).register < copyUs) return bytes;
  }
}

/** A point of the line that UCX gives: all of them have set the same two parameters. */
function ucx(bytes: number, size: string): Figure {
  return {
    figure: `registering ${size}`,
    source: UCX,
    grade: bytes === PAGE_BYTES ? 'S' : 'D',
    unit: 'us',
    from: 'table',
    role: 'calibrated',
    parameters: UCX_PARAMETERS,
    published: 16 + 0.06e-3 * bytes,
    model: () => registrationUs(bytes).register,
  };
}

export const registrationFigures: readonly Figure[] = [
  ucx(PAGE_BYTES, '4 KiB'),
  ucx(MIB, '1 MiB'),
  ucx(64 * MIB, '64 MiB'),
  ucx(GIB, '1 GiB'),
  {
    figure: 'deregistering 1 MiB',
    source: WU,
    grade: 'R',
    unit: 'us',
    from: 'table',
    role: 'calibrated',
    parameters: ['deregisterPs', 'deregisterPagePs'],
    published: 1.1 + 0.23 * 256,
    model: () => registrationUs(MIB).deregister,
  },
  {
    figure: 'registering 1 MiB, adapter and CPU of 2003',
    source: 'Wu, Wyckoff, Panda, ICPP 2003: 7.42 us + 0.77 us per page',
    grade: 'R',
    unit: 'us',
    from: 'table',
    role: 'predicted',
    parameters: UCX_PARAMETERS,
    published: 7.42 + 0.77 * 256,
    model: () => registrationUs(MIB).register,
    reason:
      'The costs are those of a current server; one of 2003 pays three times as much for a page.',
  },
  {
    figure: 'size from which registering costs less than copying',
    source: 'Frey and Alonso, as cited by ISPASS 2021',
    grade: 'S2',
    unit: 'bytes',
    from: 'table',
    role: 'predicted',
    parameters: [...UCX_PARAMETERS, 'fillPagePs'],
    published: 256 * KIB,
    model: worthRegistering,
    reason:
      'Powers of two are tried, and the true point of the model is near 400 KiB: copying at 10 GB/s is assumed, which is faster than the machines of the source.',
  },
  {
    figure: 'largest registration under RLIMIT_MEMLOCK of 64 KiB',
    source: 'Lesokhin et al., ASPLOS 2017: the limit then; Linux ib_umem_get: ENOMEM above it',
    grade: 'S',
    unit: 'bytes',
    from: 'table',
    role: 'predicted',
    parameters: ['memlockBytes'],
    published: OLD_MEMLOCK_BYTES,
    reason: 'Follows from the limit: it shows that whole pages are counted, and nothing else.',
    model: () => largestRegistration(OLD_MEMLOCK_BYTES),
  },
];
