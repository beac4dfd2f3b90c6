/** The bytes that `rcpeer` fills buffers with: byte i is (seed + 7 i + 13 (i >> 8)) mod 256. */
export function patternBytes(seed: number, from: number, count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    const place = from + i;
    bytes[i] = seed + 7 * place + 13 * (place >>> 8);
  }
  return bytes;
}
