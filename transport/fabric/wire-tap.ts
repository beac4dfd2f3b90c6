/**
 * A listener at the sending end of a wire. It hears every packet as it is sent, before the link does
 * anything to it, and changes nothing.
 */
import type { TimePs } from '../sim/units.ts';

export interface WireTap {
  /** Packet `index` of wire frame `frame` (0 unless it is a train) left; its last bit at `leftPs`. */
  sent(frame: number, index: number, leftPs: TimePs): void;
}
