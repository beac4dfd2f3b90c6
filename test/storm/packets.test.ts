/**
 * A fuzzer on the wire: packets in sequence, captured, mutated, scrambled and plain random, requests
 * and answers, thrown at queue pairs of every service in every state, with page faults in flight,
 * domains that stand still, shared receive queues and windows. Nothing throws or hangs, memory
 * changes only where the peer may write, nothing leaves that it may not read, every completion is
 * that of one work request, and nothing stays behind.
 *
 * SEED is the first seed and PACKETS how many packets there are, about. A long run:
 *
 *     PACKETS=10000000 npx vitest run test/storm/packets.test.ts
 */
import { readdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { Hca, type HcaProfile, profiles } from '../../hca/index.ts';
import {
  BlockPool,
  BURST,
  BURST_OFFSET,
  type Engine,
  FRAME_WORDS,
  FramePool,
  Link,
  NEVER,
  Node,
  NS,
  PAYLOAD_BYTES,
  Partition,
  type Port,
  packetWireBytes,
  RandomStream,
  RC_ACKNOWLEDGE,
  readCapture,
  SEC,
  TRAIN_COUNT,
  US,
  W_AETH,
  W_DEST_QPN,
  W_OPCODE,
  W_PSN,
} from '../../transport/index.ts';
import { BareHost } from '../fixtures/bare-host.ts';
import { FuzzHost, QKEY } from './fuzz-host.ts';
import { copyOf, expectKept, fill, guard, PAGES, SECRET } from './fuzz-memory.ts';
import { PacketSource } from './packet-source.ts';

const FIRST = Number(process.env.SEED ?? 1);
const PACKETS = Number(process.env.PACKETS ?? 60_000);
const PER_WORLD = 3000;
/** When everything is set up, ps. */
const START_PS = 400 * US;
const LATENCY_PS = 1000 * NS;

const folder = new URL('../captures/', import.meta.url);
const captured = readdirSync(folder)
  .filter((name) => name.endsWith('.pcap'))
  .sort()
  .flatMap((name) => [...readCapture(new Uint8Array(readFileSync(new URL(name, folder))), name)])
  .map(({ bytes }) => bytes.slice());

/** All worlds share one pool, as long as each leaves it empty. */
const newPool = (): FramePool => new FramePool(new BlockPool(1024), 16_384, 4096);
let pool = newPool();

interface World {
  digest: string;
  packets: number;
  /** Packets of the adapter that say that something was done. */
  accepted: number;
}

/** The far end of the wire: sends packet after packet, and looks at what comes back. */
class Gun implements Engine {
  readonly node = new Node('peer', 1);
  sent = 0;
  seen = 0;
  accepted = 0;
  private readonly port: Port;
  private readonly link = new Link(100, LATENCY_PS);
  private readonly slot: number;
  private readonly bytes = new Uint8Array(4096 + 64);

  constructor(
    private readonly source: PacketSource,
    private readonly chance: RandomStream,
  ) {
    this.port = this.node.addPort(LATENCY_PS, { onFrame: (frame) => this.take(frame) });
    this.slot = this.node.addEngine(this);
    this.node.queue.arm(this.slot, START_PS);
  }

  fire(now: number): void {
    const frame = this.source.next();
    const { words } = pool;
    const base = frame * FRAME_WORDS;
    const bytes = packetWireBytes(
      words[base + W_OPCODE] as number,
      words[base + PAYLOAD_BYTES] as number,
    );
    this.port.send(this.link.transmit(now, bytes), frame);
    this.sent++;
    const pause = this.chance.below(3) > 0 ? this.chance.below(400 * NS) : 0;
    const next = Math.max(this.link.freePs, now + 1) + pause;
    this.node.queue.arm(this.slot, this.sent < PER_WORLD ? next : NEVER);
  }

  private take(frame: number): void {
    this.port.take();
    const { words } = pool;
    const base = frame * FRAME_WORDS;
    const opcode = words[base + W_OPCODE] as number;
    const syndrome = (words[base + W_AETH] as number) >>> 24;
    const payload = words[base + PAYLOAD_BYTES] as number;
    // A train stands for several packets.
    const count = Math.max(1, words[base + TRAIN_COUNT] as number);
    const last = (words[base + W_PSN] as number) + count - 1;
    this.source.hear(words[base + W_DEST_QPN] as number, opcode, last & 0xffffff, syndrome);
    for (let i = 0; i < count && payload >= 4; i++) {
      const offset = (words[base + BURST_OFFSET] as number) + i * payload;
      pool.burstToBytes(words[base + BURST] as number, offset, payload, this.bytes, 0);
      this.expectNoSecret(payload);
    }
    pool.release(frame);
    this.seen += count;
    if (opcode !== RC_ACKNOWLEDGE || syndrome < 0x20) this.accepted += count;
  }

  /** Eight bytes of it in a row, or the whole of a short payload, are no accident. */
  private expectNoSecret(payload: number): void {
    let run = 0;
    for (let i = 0; i < payload; i++) {
      run = this.bytes[i] === SECRET ? run + 1 : 0;
      if (run === Math.min(8, payload)) throw new Error(`${payload} bytes hold a secret`);
    }
  }
}

function runWorld(seed: number): World {
  if (pool.framesInUse + pool.burstsInUse + pool.blocks.blocksInUse > 0) pool = newPool();
  const chance = new RandomStream(seed, 'test', 'packets');
  const mtu = [256, 1024, 4096][chance.below(3)] as number;
  const profile: HcaProfile = {
    ...(profiles.spec as HcaProfile),
    commandPs: 20 * NS,
    faultRaisePs: 1 * US,
    faultResumePs: 1 * US,
    readRetryPs: 5 * US,
    peerSuspendPs: 20 * US,
    busLatencyPs: 1 * US,
    translationCacheEntries: [4, 64][chance.below(2)] as number,
    windowPackets: [4, 64][chance.below(2)] as number,
    ackRequestPackets: 4,
    coalesceAcks: chance.below(2) === 0,
    endToEndCredits: chance.below(3) === 0,
  };
  const wire = { rateGbps: 100, latencyPs: LATENCY_PS, lossPpm: 0 };
  const pdSuspend = chance.below(2) === 0 ? 'silent' : 'announced';
  const trains = chance.below(2) === 0;
  const hca = new Hca({ name: 'a', seed, profile, lid: 1, wire, trains, pdSuspend }, pool);
  const host = new BareHost('a', pool, profile, PAGES, seed);
  const driver = new FuzzHost(host, pool, chance, mtu);
  const badPermille = [20, 100, 300, 700][chance.below(4)] as number;
  const packetChance = new RandomStream(seed, 'peer', 'packets');
  const source = new PacketSource(
    pool,
    packetChance,
    driver.slots,
    driver.targets,
    mtu,
    QKEY,
    captured,
    badPermille,
  );
  const gun = new Gun(source, packetChance);
  const nodes = [hca.node, host.node, gun.node];
  const partition = new Partition(
    nodes,
    [
      { a: 0, aPort: 0, b: 1, bPort: 0, latencyPs: profile.busLatencyPs },
      { a: 0, aPort: 1, b: 2, bPort: 0, latencyPs: LATENCY_PS },
    ],
    undefined,
    20 * SEC,
  );
  fill(host, pool);
  guard(host);
  const before = copyOf(host, pool);
  host.at(1000, () => driver.setUp());
  const tick = (): void => {
    for (let i = chance.below(3); i >= 0; i--) driver.tick();
    if (gun.sent < PER_WORLD) host.at(host.node.now + 1 + chance.below(6 * US), tick);
    else host.at(host.node.now + 100 * US, () => driver.close());
  };
  host.at(START_PS, tick);
  for (let budget = 200; partition.advance(20_000); budget--) {
    if (budget === 0) throw new Error('it does not come to an end');
  }
  source.close();

  if (!driver.isClosing) throw new Error('the driver did not come to its end');
  expectKept(before, copyOf(host, pool));
  for (let page = 0; page < PAGES; page++) {
    pool.blocks.release(host.blocks[page] as number);
    host.blocks[page] = 0;
  }
  if (pool.framesInUse + pool.burstsInUse + pool.blocks.blocksInUse > 0) {
    throw new Error(
      `${pool.framesInUse} frames, ${pool.burstsInUse} bursts, ${pool.blocks.blocksInUse} blocks are left`,
    );
  }
  hca.checkLeaks();
  const { counters } = hca.report();
  if (counters.port_xmit_packets !== gun.seen || counters.port_rcv_packets !== gun.sent)
    throw new Error('the counters of packets are wrong');
  const digest = nodes.map((node) => node.digest.toString()).join();
  return { digest, packets: gun.sent, accepted: gun.accepted };
}

it(
  `${PACKETS} packets from seed ${FIRST} on do no harm`,
  () => {
    let packets = 0;
    let accepted = 0;
    let seed = FIRST;
    const started = performance.now();
    const told = process.env.PACKETS !== undefined;
    for (; packets < PACKETS; seed++) {
      const again = `SEED=${seed} PACKETS=1 npx vitest run test/storm/packets.test.ts`;
      try {
        const world = runWorld(seed);
        packets += world.packets;
        accepted += world.accepted;
        if (seed % 20 === 0) expect(runWorld(seed).digest).toBe(world.digest);
      } catch (error) {
        process.stderr.write(`fuzzing with seed ${seed} failed; to reproduce: ${again}\n`);
        throw error;
      }
    }
    const seconds = (performance.now() - started) / 1000;
    if (told) {
      const rate = Math.round(packets / seconds);
      process.stderr.write(
        `seeds ${FIRST} to ${seed - 1}: ${packets} packets, ${accepted} answers to them, ${seconds.toFixed(0)} s, ${rate} packets a second\n`,
      );
    }
    // Packets that are all refused would show little.
    expect(accepted).toBeGreaterThan(packets / 20);
  },
  60_000 + PACKETS,
);
