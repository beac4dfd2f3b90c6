/** What the machines of a queue pair share with the rest of the adapter. */
import type { FramePool, Node } from '../../transport/index.ts';
import type { PortAttributes } from '../config.ts';
import type { AtomicTags } from '../dma/atomic-tags.ts';
import type { BusPort } from '../dma/bus-port.ts';
import type { GatherTags } from '../dma/gather-tags.ts';
import type { FaultEngine } from '../fault-engine.ts';
import type { MkeyTable } from '../memory/region.ts';
import type { Translator } from '../memory/translator.ts';
import type { HcaProfile } from '../profile.ts';
import type { Timers } from '../timers.ts';
import type { Trailer } from '../trailer.ts';
import type { Ways } from '../ways.ts';

/**
 * The longest message: max_msg_sz of mlx5 adapters. At the smallest MTU it is 2^22 packets, so that
 * PSNs of what is outstanding never come half a circle apart (IBTA 9.7.2 asks for that).
 */
export const MAX_MESSAGE_BYTES = 2 ** 30;

export interface Parts {
  readonly node: Node;
  readonly pool: FramePool;
  readonly profile: HcaProfile;
  readonly counters: Float64Array;
  readonly bus: BusPort;
  readonly mkeys: MkeyTable;
  readonly translator: Translator;
  readonly faults: FaultEngine;
  readonly timers: Timers;
  readonly tags: GatherTags;
  readonly atomics: AtomicTags;
  readonly ways: Ways;
  /** The bytes behind the message at hand. */
  readonly trailer: Trailer;
  readonly port: PortAttributes;
}

/** A protection domain of the adapter. */
export interface ProtectionDomain {
  readonly number: number;
  /** While suspended, no queue pair of the domain sends, and none touches memory. */
  suspended: boolean;
}
