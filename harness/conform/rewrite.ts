/** Numbers that every adapter gives out for itself: theirs in ours' place, and back. */
import {
  HDR_ATOMICETH,
  HDR_DETH,
  HDR_IETH,
  HDR_RETH,
  QPT_UD,
  W_DEST_QPN,
  W_IMMEDIATE,
  W_LIDS,
  W_RKEY,
  W_SOURCE_QPN,
} from '../../transport/index.ts';
import type { Packet } from '../capture/packet.ts';
import type { Program } from './program.ts';
import type { QueuePairSetup } from './setup.ts';

/** A packet for the captured queue pair as one for ours. */
export function asOurs(packet: Packet, { memory: { keys }, qpn }: Program): Packet {
  return packet.with({
    [W_DEST_QPN]: qpn,
    ...(!packet.isResponse &&
      (packet.has(HDR_RETH) || packet.has(HDR_ATOMICETH)) && {
        [W_RKEY]: keys.toOurs(packet.rkey),
      }),
    ...(packet.has(HDR_IETH) && { [W_IMMEDIATE]: keys.toOurs(packet.immediate) }),
  });
}

/** A packet of ours as the captured queue pair would have sent it. */
export function asCaptured(packet: Packet, { type, qpn }: QueuePairSetup): Packet {
  return packet.with({
    [W_LIDS]: 0,
    ...(type === QPT_UD && packet.has(HDR_DETH) && { [W_SOURCE_QPN]: qpn }),
  });
}
