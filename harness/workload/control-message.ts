/**
 * What the two programs tell each other over the control queue pair: 16 little-endian words.
 *
 *     word 0  kind
 *     word 1  control messages consumed so far by the sender of this one (receive credits)
 *     word 2… parameters, in the order of the builders below; addresses take two words
 */

const CONTROL_WORDS = 16;
export const CONTROL_BYTES = CONTROL_WORDS * 4;

/** Nothing but the credits in word 1. */
export const CONTROL_CREDIT = 1;
/** Region `index` of the sender is at `address` and may be used with `rkey`. */
export const CONTROL_ADVERT = 2;
/** The sender has posted its receives and told all its regions: operations may begin. */
export const CONTROL_START = 3;
/** Please stop using region `index` of mine, and answer PAUSED once nothing is outstanding. */
export const CONTROL_PAUSE = 4;
export const CONTROL_PAUSED = 5;
/** The receive for message `message` is posted: write `bytes` to `address` with `rkey`. */
export const CONTROL_READY = 6;
/** The sender has nothing more to do by itself; it still answers. */
export const CONTROL_BYE = 7;

/** A buffer the peer may write to or read from. */
export interface RemoteBuffer {
  readonly address: number;
  readonly rkey: number;
}

/** Splits an address below 2^53 into its low and high words. */
export function addressWords(address: number): [number, number] {
  return [address >>> 0, Math.floor(address / 2 ** 32)];
}

/** Puts together what `addressWords` took apart, from words `at` and `at + 1`. */
export function addressOf(words: readonly number[], at: number): number {
  return ((words[at + 1] as number) >>> 0) * 2 ** 32 + ((words[at] as number) >>> 0);
}

/** The bytes of a control message; words that are left out are 0. */
export function controlBytes(words: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(CONTROL_BYTES);
  const view = new DataView(bytes.buffer);
  words.forEach((word, i) => {
    view.setUint32(i * 4, word, true);
  });
  return bytes;
}

/** The words of a control message. */
export function controlWords(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: CONTROL_WORDS }, (_, i) => view.getUint32(i * 4, true));
}
