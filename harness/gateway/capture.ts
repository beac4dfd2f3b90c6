/**
 * `gateway --pcap`: every frame on the real wire, both ways, ARP and junk included, in one pcapng.
 *
 * An interface for each end says who sent a frame. Time stamps are simulated nanoseconds: of a frame
 * that came in, when it was let in; of one that goes out, when its simulated time has come. So a
 * recorded session that is run again gives the same file.
 */
import { createWriteStream, type WriteStream } from 'node:fs';
import {
  enhancedPacketBytes,
  LINK_ETHERNET,
  NS,
  pcapngHead,
  type TimePs,
  writeEnhancedPacket,
} from '../../transport/index.ts';
import { cannotWrite } from '../stats/output.ts';
import type { EdgeObserver } from './external-peer.ts';

const OWN = 0;
const PEER = 1;

export class GatewayCapture implements EdgeObserver {
  private problem: unknown;

  private constructor(
    private readonly stream: WriteStream,
    private readonly file: string,
  ) {
    stream.on('error', (error) => {
      this.problem ??= error;
    });
  }

  /** Begins a capture in `file`, which is replaced; `names` are those of our end and of the peer's. */
  static async create(file: string, names: readonly [string, string]): Promise<GatewayCapture> {
    const stream = createWriteStream(file);
    await new Promise<void>((resolve, reject) => {
      stream.once('open', () => resolve());
      stream.once('error', (error) => reject(cannotWrite(file, error)));
    });
    const interfaces = names.map((name) => ({ name, linkType: LINK_ETHERNET }));
    stream.write(pcapngHead('faultline', interfaces));
    return new GatewayCapture(stream, file);
  }

  sent(bytes: Uint8Array, now: TimePs): void {
    this.put(OWN, bytes, now);
  }

  received(bytes: Uint8Array, now: TimePs): void {
    this.put(PEER, bytes, now);
  }

  /** Ends the file. @throws Failure E_OUTPUT */
  async close(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.stream.once('close', resolve);
      this.stream.end();
    });
    if (this.problem !== undefined) throw cannotWrite(this.file, this.problem);
  }

  private put(index: number, bytes: Uint8Array, now: TimePs): void {
    const out = new Uint8Array(enhancedPacketBytes(bytes.length));
    const end = writeEnhancedPacket(index, Math.floor(now / NS), bytes, out, 0);
    this.stream.write(out.subarray(0, end));
  }
}
