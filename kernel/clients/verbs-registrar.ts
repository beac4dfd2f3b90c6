/**
 * Registers for a cache through verbs, as an MPI library does: pinned regions of one protection domain.
 */
import {
  ACCESS_LOCAL_WRITE,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
} from '../../transport/index.ts';
import type { MemoryRegion } from '../driver/memory-region.ts';
import type { Verbs } from '../driver/verbs.ts';
import type { Sim } from '../sched/completion.ts';
import type { Registrar } from './registration-cache.ts';

export class VerbsRegistrar implements Registrar<MemoryRegion> {
  constructor(
    private readonly verbs: Verbs,
    private readonly pd: number,
  ) {}

  register(address: number, length: number, writable: boolean): Sim<MemoryRegion> {
    const writing = writable ? ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE : 0;
    return this.verbs.regMr(this.pd, address, length, writing | ACCESS_REMOTE_READ);
  }

  deregister(region: MemoryRegion): Sim<void> {
    return this.verbs.deregMr(region);
  }
}
