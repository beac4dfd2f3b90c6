/**
 * Percentiles of latencies, by an HDR histogram with three significant digits: the resolution does
 * not depend on the range, which here spans six orders of magnitude.
 */
import { build } from 'hdr-histogram-js';
import { NS } from '../../transport/index.ts';
import type { LatencySummary } from './summary.ts';

/** A point of a distribution: `share` of all latencies, in percent, are at most `ns`. */
export interface DistributionPoint {
  readonly ns: number;
  readonly share: number;
}

/** Percentiles in ns of latencies in ps; all 0 when there are none. */
export function summarizeLatencies(latenciesPs: Iterable<number>): LatencySummary {
  const histogram = histogramOf(latenciesPs);
  const max = histogram.maxValue;
  // A bucket answers with its upper end, which may lie beyond the largest value in it.
  const at = (percentile: number): number =>
    Math.min(max, histogram.getValueAtPercentile(percentile));
  return { p50: at(50), p95: at(95), p99: at(99), max };
}

/** The cumulative distribution at up to `points` values of latency. */
export function latencyDistribution(
  latenciesPs: readonly number[],
  points = 400,
): DistributionPoint[] {
  const sorted = Float64Array.from(latenciesPs).sort();
  const step = Math.max(1, Math.floor(sorted.length / points));
  const distribution: DistributionPoint[] = [];
  for (let i = 0; i < sorted.length; i += step) {
    distribution.push(point(sorted, i));
  }
  const last = sorted.length - 1;
  if (last >= 0 && last % step !== 0) distribution.push(point(sorted, last));
  return distribution;
}

function point(sorted: Float64Array, index: number): DistributionPoint {
  return { ns: (sorted[index] as number) / NS, share: ((index + 1) / sorted.length) * 100 };
}

function histogramOf(latenciesPs: Iterable<number>) {
  const histogram = build({
    bitBucketSize: 64,
    autoResize: true,
    lowestDiscernibleValue: 1,
    numberOfSignificantValueDigits: 3,
  });
  for (const latencyPs of latenciesPs) histogram.recordValue(Math.round(latencyPs / NS));
  return histogram;
}
