/**
 * Where the bytes of an operation are: the range of each of its work requests, and of all together.
 */
import { GRH_BYTES, isAtomic, isSend } from './operation-schema.ts';
import type { ScenarioIndex } from './scenario-index.ts';
import type { OperationSpec, QueuePairSpec, RegionSpec } from './schema.ts';

/** Places side by side in a region: number k is at start + (k mod count) * stride. */
export interface Places {
  readonly start: number;
  readonly stride: number;
  readonly count: number;
  /** Bytes of each. */
  readonly bytes: number;
}

/** Offset of place number `k`. */
export function offsetOf({ start, stride, count }: Places, k: number): number {
  return start + (k % count) * stride;
}

/** Bytes that a work request takes at one side: with a datagram's receive the GRH area too. */
export function bytesAt(
  { kind, sizeBytes }: OperationSpec,
  side: 'source' | 'target',
  { type }: QueuePairSpec,
): number {
  return side === 'target' && isSend(kind) && type === 'UD' ? sizeBytes + GRH_BYTES : sizeBytes;
}

/**
 * The places of one side of an operation, as far as `endBytes`, where its region or window ends. One
 * place has to fit.
 */
export function placesOf(
  operation: OperationSpec,
  side: 'source' | 'target',
  pair: QueuePairSpec,
  endBytes: number,
): Places {
  const { kind, strideBytes } = operation;
  const bytes = bytesAt(operation, side, pair);
  const start = operation[side].offsetBytes;
  const isResult = side === 'source' && isAtomic(kind);
  const stride = isResult ? bytes : strideBytes + (bytes - operation.sizeBytes);
  const count = stride === 0 ? 1 : Math.floor((endBytes - start - bytes) / stride) + 1;
  return { start, stride, count, bytes };
}

/** Where the places of one side have to end: with their region, or the window that they use. */
export function endOf(
  place: OperationSpec['source'],
  region: RegionSpec,
  { windows }: Pick<ScenarioIndex, 'windows'>,
): number {
  if (place.window === null) return region.sizeBytes;
  const { offsetBytes, lengthBytes } = windows.get(place.window, 'windows');
  return lengthBytes === null ? region.sizeBytes : offsetBytes + lengthBytes;
}

/** All bytes that each side of an operation uses. */
export function rangesOf(
  operation: OperationSpec,
  index: ScenarioIndex,
): Record<'source' | 'target', { start: number; end: number }> {
  const pair = index.queuePairs.get(operation.queuePair, 'queuePair');
  const range = (side: 'source' | 'target') => {
    const place = operation[side];
    const region = index.regions.get(place.region, 'region');
    const isShared =
      side === 'target' && isSend(operation.kind) && index.srqOfRegion.has(region.name);
    if (isShared) return { start: 0, end: region.sizeBytes };
    const { start, stride, count, bytes } = placesOf(
      operation,
      side,
      pair,
      endOf(place, region, index),
    );
    return { start, end: start + (Math.min(count, operation.count) - 1) * stride + bytes };
  };
  return { source: range('source'), target: range('target') };
}
