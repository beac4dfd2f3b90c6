/**
 * Two ranks of a recorded Quantum ESPRESSO run, whose allocator returns every buffer of 128 KiB and
 * more to the kernel and gets the same address back with other pages.
 *
 * Look for: pinned registers a few thousand times, because each munmap takes a registration with it
 * (registration_ns). On demand registers each range once and pays with faults, invalidations and
 * RNR NAKs; pinned_bytes_peak is the program's control buffers only.
 */
import { host, link, replay } from 'faultline';

const a = host('a', { memory: '256MiB' });
const b = host('b', { memory: '256MiB' });

export const qeAlltoall = replay(
  'qe-alltoall',
  'Recorded MPI run whose allocator returns memory (Quantum ESPRESSO, ranks 0 and 1)',
  link(a, b, { rate: '100Gbps', latency: '1us' }),
  { run: 'qe-mmap128k', ranks: [0, 1] },
);
