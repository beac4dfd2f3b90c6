/**
 * How a world keeps to the wall clock, and how far it falls behind.
 *
 * Simulated time is time since the start. Owns the clock; what is done with its time is decided
 * elsewhere (`arrivals.ts` for what comes in, `live.ts` for how far the world may run).
 */
import { MS, type TimePs, US } from '../../transport/index.ts';

/** Later than this is behind; timers of the event loop alone are late by a millisecond or two. */
export const LAG_LIMIT_PS: TimePs = 10 * MS;

export interface LagReport {
  /** The latest that anything in the world was, milliseconds. */
  readonly max_ms: number;
  /** How often the world fell behind by more than 10 ms. */
  readonly times: number;
}

export class Pace {
  private readonly startMs: number;
  private maxPs: TimePs = 0;
  private times = 0;
  private isBehind = false;

  /** `nowMs` is a clock in milliseconds that never goes back. */
  constructor(private readonly nowMs: () => number = () => performance.now()) {
    this.startMs = nowMs();
  }

  /** Wall-clock time since the start. */
  get wallPs(): TimePs {
    return Math.floor((this.nowMs() - this.startMs) * MS);
  }

  /**
   * Takes note of when the world's next event is due; true when it has just fallen behind, and
   * further than ever.
   */
  note(duePs: TimePs, wallPs: TimePs): boolean {
    const lagPs = Math.max(0, wallPs - duePs);
    const isBehind = lagPs > LAG_LIMIT_PS;
    const isNews = isBehind && !this.isBehind && lagPs > this.maxPs;
    if (isBehind && !this.isBehind) this.times++;
    this.isBehind = isBehind;
    if (lagPs > this.maxPs) this.maxPs = lagPs;
    return isNews;
  }

  report(): LagReport {
    return { max_ms: Math.round(this.maxPs / US) / 1000, times: this.times };
  }
}
