/**
 * One host with its adapter and no wire: what benchmarks of memory on demand run on. A queue pair that
 * is connected to itself makes the adapter use memory.
 */
import { Hca, type HcaProfile, profiles } from '../../hca/index.ts';
import {
  type CompletionQueue,
  defaultHostCosts,
  Host,
  type QueuePair,
  type Sim,
} from '../../kernel/index.ts';
import { FramePool, NS, Partition, QPS_INIT, QPS_RTR, QPS_RTS } from '../../transport/index.ts';
import { cpuSeconds } from './measure.ts';

const LID = 1;
const profile = profiles.spec as HcaProfile;

export class OneHost {
  readonly host: Host;
  readonly partition: Partition;
  private readonly hca: Hca;

  /** Digest and verification are off, as in the other benchmarks of speed. */
  constructor(memoryBytes: number) {
    const pool = new FramePool(undefined, 8_192, 4_096);
    const seed = 1;
    const wire = { rateGbps: 100, latencyPs: 1_000 * NS, lossPpm: 0 };
    this.hca = new Hca({ name: 'a', seed, profile, lid: LID, wire, trains: true }, pool);
    const { busLatencyPs, busRateGbps, interruptPs } = profile;
    this.host = new Host(
      {
        name: 'a',
        seed,
        busLatencyPs,
        busRateGbps,
        memoryBytes,
        swapBytes: 0,
        cpus: 4,
        memlockBytes: Number.POSITIVE_INFINITY,
        costs: defaultHostCosts,
        interruptPs,
        faultWorkers: 4,
        verify: false,
      },
      pool,
    );
    const nodes = [this.hca.node, this.host.node];
    for (const node of nodes) node.digest.enabled = false;
    const bus = { a: 0, aPort: 0, b: 1, bPort: 0, latencyPs: busLatencyPs };
    this.partition = new Partition(nodes, [bus]);
  }

  /** Runs `program` to its end. */
  run(program: Sim<void>): void {
    const { done } = this.host.spawn('program', program);
    while (this.partition.advance(100_000));
    if (done.done) return;
    throw new Error(`the benchmark stands still: ${this.host.scheduler.unfinished().join()}`);
  }

  /**
   * Runs a program of two parts; returns the CPU seconds of the second, which begins once the first has
   * ended.
   */
  secondsOf(prepare: Sim<void>, measured: () => Sim<void>): number {
    this.run(prepare);
    const start = cpuSeconds();
    this.run(measured());
    return cpuSeconds() - start;
  }

  /** A queue pair that is connected to itself. */
  *selfConnected(pd: number, cq: CompletionQueue): Sim<QueuePair> {
    const { verbs } = this.host;
    const plan = { sendCq: cq, recvCq: cq, maxSendWr: 64, maxRecvWr: 1 };
    const qp = yield* verbs.createQp(pd, plan);
    yield* verbs.modifyQp(qp, { state: QPS_INIT, pkeyIndex: 0, port: 1, access: 15 });
    yield* verbs.modifyQp(qp, {
      state: QPS_RTR,
      destLid: LID,
      destQpn: qp.qpn,
      mtuBytes: 4096,
      receivePsn: 0,
      minRnrTimer: 12,
      maxDestRdAtomic: 16,
    });
    const retries = { timeout: 0, retryCnt: 7, rnrRetry: 7, maxRdAtomic: 16 };
    yield* verbs.modifyQp(qp, { state: QPS_RTS, sendPsn: 0, ...retries });
    return qp;
  }
}
