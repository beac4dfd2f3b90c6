/** The captures of this folder, for tests. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const folder = new URL('./', import.meta.url);

/** Names of all captures, without `.pcap`. */
export const captureNames: readonly string[] = readdirSync(folder)
  .filter((file) => file.endsWith('.pcap'))
  .map((file) => file.slice(0, -'.pcap'.length))
  .sort();

export function capturePath(name: string): string {
  return fileURLToPath(new URL(`${name}.pcap`, folder));
}

export function captureBytes(name: string): Uint8Array {
  return readFileSync(capturePath(name));
}

/** The independent checker of ICRCs. */
export const icrcChecker = fileURLToPath(new URL('icrc.py', folder));
