/**
 * `--pcap`: every packet on the simulated wire, as it was sent, in `<mode>.pcapng`.
 *
 * Time stamps are simulated nanoseconds, of the moment in which the last bit of a packet leaves its
 * port. Each port is an interface. The packets are RoCEv2 where the link is Ethernet and native
 * InfiniBand in ERF records otherwise.
 */
import { closeSync, existsSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import {
  enhancedPacketBytes,
  type FramePool,
  LINK_ERF,
  LINK_ETHERNET,
  type LinkLayer,
  pcapngHead,
  ROCE_MAX_BYTES,
  type WireTap,
  writeEnhancedPacket,
} from '../../transport/index.ts';
import type { Mode, Scenario } from '../scenario/schema.ts';
import { cannotWrite } from '../stats/output.ts';
import { PartReader, PartWriter } from './part.ts';

const BUFFER_BYTES = 1 << 20;

/** The capture of one mode of a scenario, in a folder that exists. */
export class CaptureExport {
  private readonly writers: PartWriter[] = [];

  constructor(
    private readonly folder: string,
    private readonly mode: Mode,
    private readonly scenario: Scenario,
  ) {}

  /** The tap of a host's adapter, whose frames are in `pool`. */
  tapOf(host: string, pool: FramePool): WireTap {
    const writer = new PartWriter(this.partOf(host), pool, this.linkLayer);
    this.writers.push(writer);
    return writer;
  }

  /** Writes out what the taps of this process have heard. */
  close(): void {
    for (const writer of this.writers.splice(0)) writer.close();
  }

  /** Removes what every process has written. */
  discard(): void {
    for (const { name } of this.scenario.hosts) rmSync(this.partOf(name), { force: true });
  }

  /**
   * Makes the capture of what every process has written, and removes that; a run that never began
   * leaves nothing. Throws Failure E_OUTPUT.
   */
  merge(): void {
    this.close();
    if (!this.scenario.hosts.some(({ name }) => existsSync(this.partOf(name)))) return;
    const path = join(this.folder, `${this.mode}.pcapng`);
    const unfinished = `${path}.${process.pid}.tmp`;
    const hosts = this.scenario.hosts.map(({ name }) => name);
    try {
      mergeParts(
        hosts.map((host) => this.partOf(host)),
        hosts.map((host) => `${host}.hca`),
        this.linkLayer,
        unfinished,
      );
      renameSync(unfinished, path);
    } catch (error) {
      rmSync(unfinished, { force: true });
      throw cannotWrite(path, error);
    } finally {
      this.discard();
    }
  }

  private get linkLayer(): LinkLayer {
    return this.scenario.links[0]?.linkLayer ?? 'InfiniBand';
  }

  private partOf(host: string): string {
    return join(this.folder, `.${this.mode}.${host}.part`);
  }
}

/** Writes the records of all parts in the order of time; at equal times, in that of the parts. */
function mergeParts(
  parts: readonly string[],
  names: readonly string[],
  linkLayer: LinkLayer,
  path: string,
): void {
  const linkType = linkLayer === 'Ethernet' ? LINK_ETHERNET : LINK_ERF;
  const readers = parts.map((part) => (existsSync(part) ? new PartReader(part) : undefined));
  const file = openSync(path, 'w');
  const buffer = new Uint8Array(BUFFER_BYTES);
  const flush = (end: number): void => {
    for (let at = 0; at < end; ) at += writeSync(file, buffer, at, end - at);
  };
  const head = pcapngHead(
    'faultline',
    names.map((name) => ({ name, linkType })),
  );
  buffer.set(head);
  let used = head.length;
  for (;;) {
    let first = -1;
    readers.forEach((reader, i) => {
      const bestPs = readers[first]?.timePs ?? Number.POSITIVE_INFINITY;
      if (reader !== undefined && reader.timePs < bestPs) first = i;
    });
    const reader = readers[first];
    if (reader === undefined) break;
    if (used + enhancedPacketBytes(ROCE_MAX_BYTES) > BUFFER_BYTES) {
      flush(used);
      used = 0;
    }
    used = writeEnhancedPacket(first, Math.floor(reader.timePs / 1000), reader.frame, buffer, used);
    reader.next();
  }
  flush(used);
  closeSync(file);
  for (const reader of readers) reader?.close();
}
