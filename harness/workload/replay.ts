/**
 * The program of a recorded MPI rank.
 *
 * Address-space changes and page touches are carried out in recorded order. Of its messages, those
 * with the other rank of the pair are real RDMA writes from their true buffer to their true buffer:
 * the receiver registers its buffer, posts a receive and tells the sender (READY); the sender, once
 * it has met its own line too, registers its buffer and posts RDMA WRITE WITH IMMEDIATE; the receive
 * is complete when the immediate data arrives. Before each send the program writes the buffer with
 * bytes that depend on the message, so that stale data would be noticed.
 *
 * The program waits where the recorded one did: for messages inside a collective (ptx, prx) at its
 * `ret`, for others (tx, rx) at their `done`, for those without a call at the next `call`. Where it
 * uses a buffer again or unmaps it, what used it before must have been complete: it waits there too.
 */
import type { Completion, Host, Sim } from '../../kernel/index.ts';
import { hashText, NS, SEND_SIGNALED, WR_RDMA_WRITE_WITH_IMM } from '../../transport/index.ts';
import type { HostSpec, Mode, QueuePairSpec, Scenario } from '../scenario/schema.ts';
import { isSend, type Trace, type TraceEvent, type TraceMessage } from '../trace/format.ts';
import { QUEUE_ENTRIES } from './connection.ts';
import { addressOf, addressWords, CONTROL_READY, type RemoteBuffer } from './control-message.ts';
import { Endpoint } from './endpoint.ts';
import { Outstanding } from './outstanding.ts';
import { Progress } from './progress.ts';
import { RecordedMemory } from './recorded-memory.ts';
import { type Lease, Registrations } from './registrations.ts';

/** How the data queue pair is set up: retry for ever on RNR, as an MPI library would. */
export const dataPair: QueuePairSpec = {
  name: 'data',
  between: ['', ''],
  type: 'RC',
  timeout: 14,
  retryCnt: 7,
  rnrRetry: 7,
  minRnrTimer: 12,
  maxRdAtomic: 16,
  maxDestRdAtomic: 16,
  srqs: [],
};

export interface ReplayOptions {
  readonly scenario: Scenario;
  readonly mode: Mode;
  readonly seed: number;
  readonly index: number;
}

export class Replay {
  readonly progress: Progress;
  private readonly endpoint: Endpoint;
  private registrations: Registrations | undefined;
  private readonly outstanding: Outstanding;
  /** READY of messages whose send has not been met yet, and sends that wait for their READY. */
  private readonly ready = new Map<number, RemoteBuffer>();
  private readonly waiting = new Map<number, (buffer: RemoteBuffer) => void>();
  /** Receives by message number. */
  private readonly receives = new Map<number, () => void>();
  private readonly memory: RecordedMemory;
  private readonly gapScale: number;

  constructor(
    private readonly host: Host,
    private readonly trace: Trace,
    private readonly peerRank: number,
    private readonly options: ReplayOptions,
  ) {
    const { scenario, seed, index } = options;
    const sends = trace.events.filter((event) => isSend(event) && event.peer === peerRank);
    this.progress = new Progress(sends.length);
    this.outstanding = new Outstanding(this.progress);
    this.gapScale = scenario.replay?.gapScale ?? 0;
    this.memory = new RecordedMemory(host.mm, trace, (address, length) =>
      this.beforeUnmap(address, length),
    );
    this.endpoint = new Endpoint(
      host,
      {
        seed,
        localName: scenario.hosts[index]?.name ?? '',
        remoteName: scenario.hosts[1 - index]?.name ?? '',
        remoteLid: 2 - index,
        mtuBytes: scenario.mtu,
        queuePairs: [dataPair],
        srqs: [],
        outstanding: 2 * QUEUE_ENTRIES,
        waiting: scenario.hosts[index] as HostSpec,
      },
      (words) => this.onControl(words),
    );
    host.spawn(`rank ${trace.rank}`, this.run());
  }

  private *run(): Sim<void> {
    const { progress, host, trace } = this;
    yield* this.memory.restore();
    yield* this.endpoint.open();
    this.registrations = new Registrations(host, this.endpoint.pd, this.options.mode);
    progress.startedPs = host.node.now;
    for (const event of trace.events) {
      progress.position = `${trace.file}:${event.line} ${event.kind}`;
      const computePs = Math.round(event.gapNs * NS * this.gapScale);
      if (computePs > 0) yield computePs;
      yield* this.step(event);
    }
    progress.position = 'waiting for the last messages';
    yield* this.outstanding.waitForAll();
    progress.position = 'saying good-bye';
    yield* this.endpoint.close();
    progress.position = 'done';
    progress.finished = true;
  }

  private *step(event: TraceEvent): Sim<void> {
    switch (event.kind) {
      case 'tx':
      case 'ptx':
        if (event.peer !== this.peerRank) return;
        yield* this.outstanding.waitForRange(event.address, event.length);
        return yield* this.send(event);
      case 'rx':
      case 'prx':
        if (event.peer !== this.peerRank || event.message === 0) return;
        yield* this.outstanding.waitForRange(event.address, event.length);
        return yield* this.receive(event);
      case 'call':
        return yield* this.outstanding.waitForId(0);
      case 'ret':
      case 'done':
        return yield* this.outstanding.waitForId(event.id);
      default:
        return yield* this.memory.step(event);
    }
  }

  /** Meets a send line: posts it if the peer is ready, else as soon as it is. */
  private *send(event: TraceMessage): Sim<void> {
    const { message } = event;
    const done = this.outstanding.begin(event, `send of message ${message}`);
    const buffer = this.ready.get(message);
    if (buffer) {
      this.ready.delete(message);
      return yield* this.postSend(event, buffer, done);
    }
    this.waiting.set(message, (later) => {
      this.host.spawn(`send ${message}`, this.postSend(event, later, done));
    });
  }

  private *postSend(event: TraceMessage, to: RemoteBuffer, done: Completion<void>): Sim<void> {
    const { host, endpoint, progress } = this;
    const { address, bytes, message } = event;
    const lease = yield* this.lease(event, false);
    yield* host.mm.fillResident(address, event.length, this.pattern(message));
    const postedPs = host.node.now;
    const request = {
      opcode: WR_RDMA_WRITE_WITH_IMM,
      flags: SEND_SIGNALED,
      sges: [{ address, length: bytes, lkey: lease.region.lkey }],
      rkey: to.rkey,
      remoteAddress: to.address,
      immediate: message,
    };
    yield* endpoint.post(dataPair.name, request, (completion) => {
      endpoint.requireSuccess(completion, `the write of message ${message}`);
      progress.count(bytes, postedPs, completion.timePs);
      lease.release();
      done.resolve();
    });
  }

  /** Meets a receive line: registers the buffer, posts a receive and tells the sender. */
  private *receive(event: TraceMessage): Sim<void> {
    const { message, address } = event;
    const done = this.outstanding.begin(event, `receive of message ${message}`);
    const lease = yield* this.lease(event, true);
    this.receives.set(message, () => {
      lease.release();
      done.resolve();
    });
    const qp = this.endpoint.pair(dataPair.name);
    yield* this.endpoint.postReceive(qp, [], false, (completion) => {
      this.endpoint.requireSuccess(completion, 'a receive');
      const arrived = this.receives.get(completion.immediate);
      this.receives.delete(completion.immediate);
      arrived?.();
    });
    yield* this.endpoint.sendControl(CONTROL_READY, [
      message,
      lease.region.rkey,
      ...addressWords(address),
      event.bytes,
    ]);
  }

  private onControl(words: readonly number[]): void {
    if (words[0] !== CONTROL_READY) return;
    const message = words[2] as number;
    const buffer = { rkey: words[3] as number, address: addressOf(words, 4) };
    const go = this.waiting.get(message);
    this.waiting.delete(message);
    if (go) go(buffer);
    else this.ready.set(message, buffer);
  }

  private *lease({ address, length }: TraceMessage, writable: boolean): Sim<Lease> {
    return yield* (this.registrations as Registrations).acquire(address, length, writable);
  }

  /** Waits for what still uses the range, then lets go of registrations of it. */
  private *beforeUnmap(address: number, length: number): Sim<void> {
    yield* this.outstanding.waitForRange(address, length);
    yield* (this.registrations as Registrations).beforeUnmap(address, length);
  }

  /** A pattern that no other message of either side has. */
  private pattern(message: number): number {
    return hashText(`${this.trace.rank} ${message}`, this.options.seed);
  }
}
