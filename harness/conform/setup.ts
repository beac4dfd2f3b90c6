/**
 * What is known of a captured queue pair before its first packet: numbers, path, keys, program.
 *
 * It comes from the text beside the capture (`text-setup.ts`) or from the connection exchange inside
 * it (`tcp-exchange.ts`, `cm-exchange.ts`). Where the text lists commands, they are the queue pair's
 * program; elsewhere its program is unknown and only its answers can be compared.
 */
import type { CommandText, RegionText } from './rcpeer-text.ts';

/** Memory that the captured host had registered. */
export interface RegionSetup extends RegionText {
  /** IBV_ACCESS_*. */
  readonly access: number;
  readonly isOnDemand: boolean;
}

/** Attributes of a connected queue pair; what the exchange does not say is as its tool sets it. */
export interface ConnectionSetup {
  readonly remoteGid: string;
  readonly remoteQpn: number;
  readonly receivePsn: number;
  readonly mtu: number;
  readonly timeout: number;
  readonly retry: number;
  readonly rnrRetry: number;
  readonly minRnrTimer: number;
  readonly maxRdAtomic: number;
  readonly maxDestRdAtomic: number;
  readonly qkey: number;
  readonly access: number;
}

export interface QueuePairSetup {
  /** For people: `A`, or its address and number. */
  readonly name: string;
  /** Of its port: 16 bytes in hexadecimal. */
  readonly gid: string;
  readonly qpn: number;
  /** IBV_QPT_*. */
  readonly type: number;
  readonly sendPsn: number;
  /** Work requests its send queue holds at most, and its receive queue. */
  readonly sendEntries: number;
  readonly receiveEntries: number;
  readonly sigAll: boolean;
  readonly regions: readonly RegionSetup[];
  /** What its program did, in order; undefined where that is not known. */
  readonly program: readonly CommandText[] | undefined;
  /** Every peer it was ever connected to; the last attributes known for each. */
  readonly connections: readonly ConnectionSetup[];
}
