/**
 * The result of a comparison as `summary.json` holds it. Fields are added, never renamed.
 */
import type { Mode } from '../scenario/schema.ts';

/** Nanoseconds, from posting a work request to its completion. */
export interface LatencySummary {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

export interface ModeSummary {
  /** Digest of everything observable in the run; equal for equal runs wherever they ran. */
  readonly digest: string;
  /** False when the run ended early; everything else then says how far it came. */
  readonly complete: boolean;
  /** Simulated time at which both hosts had come to rest, connecting included. */
  readonly simulated_ns: number;
  /** Data operations that completed with success, both hosts. */
  readonly operations: number;
  /** Their payload. */
  readonly bytes: number;
  /** Payload over the time from the start of traffic to the last completion, 10^9 bits a second. */
  readonly goodput_gbps: number;
  readonly latency_ns: LatencySummary;
  /** Time spent in ibv_reg_mr and ibv_dereg_mr, both hosts. */
  readonly registration_ns: number;
  readonly registrations: number;
  /** Sum over the hosts of their peaks. */
  readonly pinned_bytes_peak: number;
  readonly resident_bytes_peak: number;
  /** Pages that the adapter faulted on, and pages that the kernel took back from it. */
  readonly page_faults: number;
  readonly page_invalidations: number;
  /** RNR NAKs sent by responders. */
  readonly rnr_naks: number;
  readonly retransmitted_packets: number;
  /** Local ACK time-outs. */
  readonly timeouts: number;
  /** True when every byte of every operation was compared and was what the sender had. */
  readonly data_verified: boolean;
  /** Messages whose hashes were compared, and how many differed or had no counterpart. */
  readonly messages_checked: number;
  readonly messages_unverified: number;
  /** Messages of unreliable services that never arrived; nobody promised that they would. */
  readonly messages_lost: number;
  /** Wall-clock figures; they differ from run to run. */
  readonly wall: WallSummary;
}

export interface WallSummary {
  readonly seconds: number;
  /** Windows exchanged with the peer; 0 in one process. */
  readonly windows: number;
}

export interface Summary {
  readonly scenario: string;
  readonly scenario_hash: string;
  readonly seed: number;
  readonly transport: string;
  readonly modes: Partial<Record<Mode, ModeSummary>>;
}
