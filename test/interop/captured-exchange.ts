/**
 * Owns the TCP bytes of a tool's connection exchange as a real one was captured: what the client said
 * and what the server said, and a line that plays one of them.
 */
import { readFileSync } from 'node:fs';
import { readCapture } from '../../transport/index.ts';
import { ExchangeError, type Line } from './exchange/line.ts';

/** What the two ends said, each whole. */
export interface CapturedExchange {
  readonly client: Buffer;
  readonly server: Buffer;
}

const ETHERNET_BYTES = 14;
const IPV4 = 0x0800;
const TCP = 6;
const TOOL_PORT = 18515;

/** The exchange in `test/captures/NAME.pcap`; none of them lost or repeated a segment. */
export function capturedExchange(name: string): CapturedExchange {
  const path = new URL(`../captures/${name}.pcap`, import.meta.url);
  const client: Buffer[] = [];
  const server: Buffer[] = [];
  for (const { bytes } of readCapture(readFileSync(path), name)) {
    const frame = Buffer.from(bytes);
    if (frame.readUInt16BE(12) !== IPV4 || frame[ETHERNET_BYTES + 9] !== TCP) continue;
    const end = ETHERNET_BYTES + frame.readUInt16BE(ETHERNET_BYTES + 2);
    const tcp = ETHERNET_BYTES + ((frame[ETHERNET_BYTES] as number) & 15) * 4;
    const data = frame.subarray(tcp + ((frame[tcp + 12] as number) >>> 4) * 4, end);
    (frame.readUInt16BE(tcp) === TOOL_PORT ? server : client).push(data);
  }
  return { client: Buffer.concat(client), server: Buffer.concat(server) };
}

/** A line whose other end says what it was going to say anyway. */
export class PlayedLine implements Line {
  private at = 0;
  private readonly written: Buffer[] = [];

  constructor(private readonly theirs: Buffer) {}

  /** What our end has said. */
  get ours(): Buffer {
    return Buffer.concat(this.written);
  }

  get isExhausted(): boolean {
    return this.at === this.theirs.length;
  }

  read(length: number): Promise<Buffer> {
    const bytes = this.theirs.subarray(this.at, this.at + length);
    this.at += bytes.length;
    if (bytes.length === length) return Promise.resolve(bytes);
    return Promise.reject(new ExchangeError(`${bytes.length} of ${length} bytes`));
  }

  write(bytes: Buffer): void {
    this.written.push(bytes);
  }

  close(): void {}
}
