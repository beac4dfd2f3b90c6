/**
 * Pattern bytes: what a simulated program writes into its buffers.
 *
 * Byte i of pattern `seed` is a function of (seed, i) alone, so a page that holds a piece of a pattern
 * needs no memory until somebody wants its bytes. Bytes come in little-endian words of four; word
 * numbers wrap at 2^32, so a pattern repeats after 16 GiB.
 */

/** Word `index` of pattern `seed`: one round of a multiply-xorshift mixer. */
function patternWord(seed: number, index: number): number {
  let word = Math.imul((index | 0) + Math.imul(seed, 0x85ebca77), 0x9e3779b1);
  word = Math.imul(word ^ (word >>> 15) ^ seed, 0x2c1b3c6d);
  return word ^ (word >>> 13);
}

/** Byte `offset` of pattern `seed`. */
export function patternByte(seed: number, offset: number): number {
  return (patternWord(seed, Math.floor(offset / 4)) >>> ((offset % 4) * 8)) & 255;
}

/**
 * Writes `length` bytes of pattern `seed`, from its byte `offset` on, into `bytes` at `at`. `words` is
 * the same memory as little-endian words; whole aligned words take the fast way.
 */
export function writePattern(
  bytes: Uint8Array,
  words: Int32Array,
  at: number,
  length: number,
  seed: number,
  offset: number,
): void {
  let done = 0;
  while (done < length && ((at + done) & 3) !== 0) {
    bytes[at + done] = patternByte(seed, offset + done);
    done++;
  }
  const firstWord = (at + done) >>> 2;
  const wordCount = (length - done) >>> 2;
  let index = Math.floor((offset + done) / 4);
  const shift = ((offset + done) % 4) * 8;
  if (shift === 0) {
    for (let i = 0; i < wordCount; i++) words[firstWord + i] = patternWord(seed, index++);
  } else {
    let low = patternWord(seed, index++);
    for (let i = 0; i < wordCount; i++) {
      const high = patternWord(seed, index++);
      words[firstWord + i] = (low >>> shift) | (high << (32 - shift));
      low = high;
    }
  }
  for (done += wordCount * 4; done < length; done++) {
    bytes[at + done] = patternByte(seed, offset + done);
  }
}
