/**
 * Where things stand in the address space of a simulated program, and how the two sides of a
 * connection come to know each other without a wire.
 *
 * Real programs exchange QP numbers and PSNs over TCP before they connect (perftest, librdmacm).
 * Here both sides know the scenario, so both can compute what the other will tell; only the time
 * that exchange takes is modelled.
 */
import { FIRST_QPN } from '../../hca/index.ts';
import { hashText, MS, type TimePs, US } from '../../transport/index.ts';

export const PAGE_BYTES = 4096;

/** The control region of every program; no recorded process has anything near. */
export const CONTROL_ADDRESS = 2 ** 44;

/** Base address of a scenario's region number `index` on its host: 64 GiB apart. */
export function regionAddress(index: number): number {
  return 2 ** 45 + index * 2 ** 36;
}

/** The number of the k-th queue pair that a host creates. */
export function qpnOf(k: number): number {
  return FIRST_QPN + k;
}

/** The control queue pair of every program. */
export const CONTROL_QPN = qpnOf(0);

/** The first PSN a host sends on a queue pair. */
export function initialPsn(seed: number, host: string, queuePair: string): number {
  return hashText(`${host}/${queuePair}`, seed) & 0xffffff;
}

/** When, at the latest, both sides have created their queue pairs and may send. */
export function connectedAtPs(queuePairs: number): TimePs {
  return MS + queuePairs * 200 * US;
}

/** The smallest page-aligned range around `length` bytes at `address`. */
export function pageRange(address: number, length: number): { start: number; end: number } {
  return {
    start: Math.floor(address / PAGE_BYTES) * PAGE_BYTES,
    end: Math.ceil((address + length) / PAGE_BYTES) * PAGE_BYTES,
  };
}
