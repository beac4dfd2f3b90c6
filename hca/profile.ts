/**
 * What differs between adapter generations: clock, costs, limits and firmware habits, as data.
 *
 * Every field says its unit. Sources: "NPF" is Lesokhin et al., "Page Fault Support for Network
 * Controllers" (ASPLOS 2017), figure 3; "ISPASS" is Fukuoka, Sato and Taura, "Pitfalls of InfiniBand
 * with On-Demand Paging" (ISPASS 2021); "UCX" is the cost model in openucx/ucx
 * src/uct/ib/base/ib_md.c and ib_iface.c; "Kalia" is "Design Guidelines for High Performance RDMA
 * Systems" (ATC 2016). What has no source is marked as an assumption.
 */
import { NS, SEC, type TimePs, US } from '../transport/index.ts';

export interface HcaProfile {
  readonly name: string;
  /** Adapter clock in MHz; all `…Cycles` are in its cycles. Assumption: no vendor publishes it. */
  readonly clockMhz: number;

  /**
   * Smallest one-way latency of the bus, ps: the lookahead between adapter and host. Assumption: half
   * of the round trip of about 500 ns that small DMA reads take on servers of that time.
   */
  readonly busLatencyPs: TimePs;
  /** Each direction of the bus, Gb/s. PCIe 3.0 x16 less line coding: 126 Gb/s. */
  readonly busRateGbps: number;
  /** From the MSI-X write at the host to its handler running, ps. Assumption. */
  readonly interruptPs: TimePs;

  /** Doorbell to the work request being known to the send engine. UCX: 350 ns WQE fetch. */
  readonly wqeFetchPs: TimePs;
  /** Latency of the send pipeline for one packet, cycles. Assumption; see docs/MODEL.md. */
  readonly sendPipelineCycles: number;
  /** Latency of the receive pipeline for one packet, cycles. Assumption. */
  readonly receivePipelineCycles: number;
  /** The receive pipeline takes one packet in this many cycles. Assumption (about 200 Mpps). */
  readonly receiveIntervalCycles: number;
  /** One driver command (create, modify, destroy) in firmware, ps. Assumption. */
  readonly commandPs: TimePs;
  /** One page table entry written by TABLE_UPDATE, cycles. Assumption. */
  readonly tableEntryCycles: number;

  /** Entries of the translation cache. Unknown for every ConnectX; assumption. */
  readonly translationCacheEntries: number;
  /** Extra latency of a translation that is not cached, ps. Assumption ("500+ ns", unsourced). */
  readonly translationMissPs: TimePs;

  /**
   * Regions may have no holes and never change once they are registered: every entry of a table is
   * set once, and only then can the key be used. So there are no page faults, no prefetch, no
   * re-registration, and no registration on demand. That is the class of IBM's eHCA, whose driver
   * registers through the hypervisor (LKML, February 2008; drivers/infiniband/hw/ehca).
   */
  readonly fixedRegions: boolean;

  /**
   * It records which pages of a region it writes, and can replace the entry of a page that it has not
   * written since it was asked, in one step (QUERY_DIRTY, SWITCH_PAGE). What Gunthorpe asks for in LKML,
   * February 2008 ("page migration using some atomic operations with the adaptor and a cpu page copy with
   * retry"); no adapter has the second.
   */
  readonly dirtyTracking: boolean;

  /**
   * From the last bit of a packet out of the send pipeline to its last bit at the receive pipeline,
   * for a packet whose destination is the port it comes from: it never gets to the link. Assumption:
   * a crossing of the chip, half of what the bus takes.
   */
  readonly loopbackLatencyPs: TimePs;
  /**
   * Rate of that way, Gb/s. Assumption: that of the bus, because every byte of it is read and written
   * over the bus, which therefore limits it whatever the chip could do.
   */
  readonly loopbackRateGbps: number;

  /** Bursts of up to 64 KiB that one queue pair reads ahead. Assumption. */
  readonly gatherBursts: number;
  /** Packets a queue pair may have unacknowledged. Assumption; rxe uses 128. */
  readonly windowPackets: number;
  /** The requester asks for an ACK on every so many packets of a message, and on its last one. */
  readonly ackRequestPackets: number;
  /**
   * An ACK that still waits for the link is replaced by a later one of its connection. mlx5 does that;
   * off, as in rxe, every request that asks for an ACK has its own.
   */
  readonly coalesceAcks: boolean;
  /** ACKs say how many receives are posted (IBTA 9.7.7.2). mlx5 does; rxe never does. */
  readonly endToEndCredits: boolean;

  /**
   * Firmware time from a missing translation to the page-fault event, ps. NPF figure 3(a) says 129.2 us
   * up to the driver; bus and interrupt, which the model charges where they happen, are taken off.
   */
  readonly faultRaisePs: TimePs;
  /** The same for each further page of the fault, ps. NPF, derived from 1 and 1024 pages. */
  readonly faultRaisePerPagePs: TimePs;
  /** Firmware time from the resume command to the queue pair running again, ps. NPF figure 3(a). */
  readonly faultResumePs: TimePs;
  /**
   * A requester whose own buffer faulted while a READ response arrived asks again after this long,
   * ps. ISPASS: about 500 us, whether or not the fault is served.
   */
  readonly readRetryPs: TimePs;

  /** What the adapter really waits after an RNR NAK, in percent of the nominal timer. ISPASS: 350. */
  readonly rnrWaitPercent: number;
  /** ... but at least this, ps. ISPASS: the damming window of the 0.01 ms setting ends at 0.8 ms. */
  readonly rnrWaitMinPs: TimePs;
  /**
   * A peer that has announced the suspend of its protection domain is asked again after this long, ps,
   * should its resume have been lost. Assumption; ours, like the announcement.
   */
  readonly peerSuspendPs: TimePs;
  /** The local ACK time-out uses at least this exponent. ISPASS: 16 on ConnectX-3, 4 and 6. */
  readonly ackTimeoutMinExponent: number;
  /** ... times this (IBTA allows 1 to 4). Measured 2 on ConnectX-6 with the floor on. */
  readonly ackTimeoutFactor: number;
}

const connectx4: HcaProfile = {
  name: 'connectx-4',
  clockMhz: 400,
  busLatencyPs: 250 * NS,
  busRateGbps: 126,
  interruptPs: 1 * US,
  wqeFetchPs: 350 * NS,
  sendPipelineCycles: 40,
  receivePipelineCycles: 40,
  receiveIntervalCycles: 2,
  commandPs: 2 * US,
  tableEntryCycles: 4,
  translationCacheEntries: 16_384,
  translationMissPs: 500 * NS,
  fixedRegions: false,
  dirtyTracking: false,
  loopbackLatencyPs: 125 * NS,
  loopbackRateGbps: 126,
  gatherBursts: 4,
  windowPackets: 256,
  ackRequestPackets: 16,
  coalesceAcks: false,
  endToEndCredits: false,
  faultRaisePs: (129_200 - 250 - 1_000) * NS,
  faultRaisePerPagePs: 23_600,
  faultResumePs: 78_200 * NS,
  readRetryPs: 500 * US,
  rnrWaitPercent: 350,
  rnrWaitMinPs: 800 * US,
  peerSuspendPs: 2 * SEC,
  ackTimeoutMinExponent: 16,
  ackTimeoutFactor: 2,
};

/** The profiles that ship, by name. */
export const profiles: Readonly<Record<string, HcaProfile>> = {
  'connectx-4': connectx4,
  // The adapter of NPF: a "relatively short NPF-specific timeout" instead of the stretched RNR wait.
  'connect-ib': {
    ...connectx4,
    name: 'connect-ib',
    clockMhz: 300,
    rnrWaitPercent: 100,
    rnrWaitMinPs: 0,
  },
  // ISPASS, ConnectX-5 with firmware 16.26: a time-out floor of 2^12.
  'connectx-5': { ...connectx4, name: 'connectx-5', clockMhz: 500, ackTimeoutMinExponent: 12 },
  // One ACK for each packet, as network simulators (htsim, ns-3) have it: for comparisons with them.
  'connectx-4-ack-all': { ...connectx4, name: 'connectx-4-ack-all', ackRequestPackets: 1 },
  // IBM's eHCA, as far as memory is concerned; everything else is as in connectx-4.
  ehca: { ...connectx4, name: 'ehca', fixedRegions: true },
  // What rdma_rxe does in software: timers as the specification has them, no floor.
  spec: {
    ...connectx4,
    name: 'spec',
    rnrWaitPercent: 100,
    rnrWaitMinPs: 0,
    ackTimeoutMinExponent: 0,
    ackTimeoutFactor: 1,
  },
};

/** Picoseconds of `cycles` adapter cycles of `profile`, rounded up. */
export function cyclesPs(profile: HcaProfile, cycles: number): TimePs {
  return Math.ceil((cycles * 1_000_000) / profile.clockMhz);
}
