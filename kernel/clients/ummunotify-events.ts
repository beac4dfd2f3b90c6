/**
 * The records that a read of /dev/ummunotify returns (include/linux/ummunotify.h of 2009), and the range that each is
 * about.
 */
import type { WatchedRange } from './watched-ranges.ts';

/** Types of record: a range was invalidated; the list is empty. */
export const UMMUNOTIFY_INVAL = 0;
export const UMMUNOTIFY_LAST = 1;
/** Flag of a record: hintStart and hintEnd are the one change that hit the range. */
export const UMMUNOTIFY_HINT = 1;
/** Length of a record in bytes. */
export const UMMUNOTIFY_RECORD_BYTES = 32;

/** struct ummunotify_event. */
export interface UmmunotifyEvent {
  /** UMMUNOTIFY_INVAL or UMMUNOTIFY_LAST. */
  readonly type: number;
  /** 0 or UMMUNOTIFY_HINT. */
  readonly flags: number;
  /** Bytes [hintStart, hintEnd) that changed; the whole range without UMMUNOTIFY_HINT. */
  readonly hintStart: number;
  readonly hintEnd: number;
  /** INVAL: the cookie of the range. LAST: the generation when the list was empty. */
  readonly userCookieCounter: number;
}

/** A registered range, and the one event that can be about it. */
export interface WatchedRegion extends WatchedRange {
  isInvalid: boolean;
  hasHint: boolean;
  hintStart: number;
  hintEnd: number;
}

/** The record about a region that is on the list. */
export function eventOf(region: WatchedRegion): UmmunotifyEvent {
  const { cookie, start, end, hasHint, hintStart, hintEnd } = region;
  return {
    type: UMMUNOTIFY_INVAL,
    flags: hasHint ? UMMUNOTIFY_HINT : 0,
    hintStart: hasHint ? Math.max(start, hintStart) : start,
    hintEnd: hasHint ? Math.min(end, hintEnd) : end,
    userCookieCounter: cookie,
  };
}

/** The record that says that the list is empty. */
export function lastEvent(generation: number): UmmunotifyEvent {
  return {
    type: UMMUNOTIFY_LAST,
    flags: 0,
    hintStart: 0,
    hintEnd: 0,
    userCookieCounter: generation,
  };
}
