/**
 * Owns what both ends of a connection have in common, whoever drives them: the verbs of rcpeer as
 * commands, and what they answer. Does not own how a command gets there (guest-end.ts, our-end.ts).
 */

/** Which service of the transport a queue pair gives. */
export type Service = 'rc' | 'uc' | 'ud';

/** One verb with its arguments, such as `post` with op=write. */
export interface Command {
  readonly verb: string;
  readonly [argument: string]: string | number | bigint;
}

/** A work completion, of a request or of a receive. */
export interface Completion {
  readonly id: number;
  /** 0 is success. */
  readonly status: number;
  readonly statusText: string;
  readonly op: string;
  readonly length: number;
  readonly immediate: number | undefined;
  readonly invalidatedRkey: number | undefined;
}

/** What a batch of commands answered. */
export interface Answer {
  readonly completions: readonly Completion[];
  /** What `dump` printed, in the order of the commands. */
  readonly dumps: readonly Buffer[];
  /** The rkeys of windows, in the order of `mw` and of `post op=bind`. */
  readonly windowRkeys: readonly number[];
  /** Whatever went wrong: a completion that did not come, bytes that are not what they should be. */
  readonly errors: readonly string[];
}

/** Where an end's memory and queue pair are, as its peer has to know them. */
export interface EndAddress {
  readonly qpn: number;
  readonly psn: number;
  readonly gid: string;
  /** Of region 0. */
  readonly memoryAddress: bigint;
  readonly rkey: number;
}

/** How a connection is to be. */
export interface Path {
  readonly mtuBytes: number;
  readonly network: 'ipv4' | 'ipv6';
}

/** One queue pair with one region of memory. */
export interface End {
  /** What to call it: `guest` or `us`. */
  readonly name: string;
  readonly address: EndAddress;
  connect(peer: EndAddress, path: Path): Promise<void>;
  /** Runs commands one after the other, however many fail. */
  run(commands: readonly Command[]): Promise<Answer>;
  close(): Promise<void>;
}

/** Makes ends. */
export interface Side {
  open(options: EndOptions): Promise<End>;
}

export interface EndOptions {
  readonly service: Service;
  readonly psn: number;
  readonly path: Path;
  readonly memoryBytes: number;
  readonly isOnDemand: boolean;
}

/** Connection attributes that all connections share (verbs' encodings). */
export const connectionAttributes = {
  // 134 ms: a guest in software emulation may think for 20, and more on a busy machine, and each
  // time-out of ours is one retry less.
  timeout: 15,
  // Not 7, which rxe takes for without end (rxe-retry-for-ever).
  retry: 6,
  // Infinite, as on-demand memory asks for.
  rnr: 7,
  // 0.64 ms.
  minrnr: 12,
  rd: 16,
  drd: 16,
} as const;

export const QKEY = 0x11111111;

/** Byte `i` of what `fill` with `seed` writes, the same at both ends. */
export function pattern(seed: number, i: number): number {
  return (seed + 7 * i + 13 * (i >> 8)) & 255;
}
