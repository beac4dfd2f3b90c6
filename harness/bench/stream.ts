/**
 * Simulated packets per CPU second: 1 MiB writes in packets of 4 KiB between two hosts in one process.
 *
 * Memory is pinned and warm, 16 MiB on each host; every packet is acknowledged; every payload is read
 * from the sender's memory and copied into the receiver's. Set-up and the first two passes through
 * the buffers are not counted.
 */
import { validateScenario } from '../scenario/validate.ts';
import { World } from '../world.ts';
import { cpuSeconds } from './measure.ts';

const PACKET_BYTES = 4096;
const MESSAGE_BYTES = 1 << 20;
const WARM_MESSAGES = 32;

function streamScenario(messages: number) {
  const host = { memory: '64MiB', profile: 'connectx-4-ack-all' } as const;
  return validateScenario({
    name: 'stream-4k',
    summary: 'benchmark',
    hosts: [
      { ...host, name: 'a' },
      { ...host, name: 'b' },
    ],
    links: [{ between: ['a', 'b'], rate: '100Gbps', latency: '1us' }],
    mtu: PACKET_BYTES,
    queuePairs: [{ name: 'qp', between: ['a', 'b'] }],
    regions: [
      { name: 'source', host: 'a', size: '16MiB', prefault: true },
      { name: 'target', host: 'b', size: '16MiB', prefault: true },
    ],
    operations: [
      {
        kind: 'write',
        from: 'a',
        queuePair: 'qp',
        source: { region: 'source' },
        target: { region: 'target' },
        size: '1MiB',
        count: messages,
        depth: 16,
        refill: false,
      },
    ],
  });
}

/** Runs the stream once; `verify` turns the digest and the hashing of all bytes on. */
export function streamPacketsPerCpuSecond(messages: number, verify: boolean): number {
  const scenario = streamScenario(messages + WARM_MESSAGES);
  const world = new World({ scenario, mode: 'pinned', seed: 1, verify });
  const { partition } = world;
  while (world.progress.done < WARM_MESSAGES) partition.advance(1_000);
  const before = world.progress.done;
  const start = cpuSeconds();
  while (world.progress.done < messages) partition.advance(20_000);
  const spent = cpuSeconds() - start;
  return ((world.progress.done - before) * (MESSAGE_BYTES / PACKET_BYTES)) / spent;
}
