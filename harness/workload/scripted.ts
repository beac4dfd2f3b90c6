/**
 * The program of one host in a scripted scenario: its operations, the receives it owes the peer, and
 * its events.
 *
 * Set-up on both sides: connect, map and register the regions, tell the peer about them (ADVERT),
 * post receives, say START. Traffic starts when the peer's START is here; all `at` times count from
 * there. Events are the business of `events.ts`. The end: own operations and events done, good-byes
 * exchanged.
 */
import { Completion, type Host, type Sim, wait } from '../../kernel/index.ts';
import {
  assert,
  hashText,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
} from '../../transport/index.ts';
import type { Mode, OperationSpec, Scenario } from '../scenario/schema.ts';
import { type Buffer, Buffers } from './buffers.ts';
import { CONTROL_START } from './control-message.ts';
import { Endpoint } from './endpoint.ts';
import { Events, sleepUntil } from './events.ts';
import { Progress } from './progress.ts';

const opcodeOf: Readonly<Record<OperationSpec['kind'], number>> = {
  write: WR_RDMA_WRITE,
  writeImm: WR_RDMA_WRITE_WITH_IMM,
  send: WR_SEND,
  read: WR_RDMA_READ,
};

/** Receives posted ahead of the sends that consume them. */
const POSTED_RECEIVES = 512;

export class Scripted {
  readonly progress: Progress;
  private readonly scenario: Scenario;
  private readonly name: string;
  private readonly endpoint: Endpoint;
  private readonly buffers: Buffers;
  private readonly peerStarted = new Completion<void>("the peer's start");
  private readonly events: Events;

  constructor(
    private readonly host: Host,
    private readonly options: { scenario: Scenario; mode: Mode; seed: number; index: number },
  ) {
    const { scenario, seed, index, mode } = options;
    this.scenario = scenario;
    this.name = scenario.hosts[index]?.name ?? '';
    const planned = this.ownOperations().reduce((sum, { count }) => sum + count, 0);
    this.progress = new Progress(planned);
    this.buffers = new Buffers(host, this.name, scenario.regions, mode);
    this.endpoint = new Endpoint(
      host,
      {
        seed,
        localName: this.name,
        remoteName: scenario.hosts[1 - index]?.name ?? '',
        remoteLid: 2 - index,
        mtuBytes: scenario.mtu,
        queuePairs: scenario.queuePairs,
      },
      (words) => this.onControl(words),
    );
    this.events = new Events(host, this.endpoint, this.buffers);
    host.spawn('program', this.run());
  }

  private *run(): Sim<void> {
    const { endpoint, host, progress, options } = this;
    yield* endpoint.open();
    progress.position = 'registering';
    for (const buffer of this.buffers.own) {
      yield* this.buffers.create(buffer, endpoint.pd, options.seed);
      yield* this.events.open(buffer);
    }
    const threads = this.scenario.operations
      .filter((operation) => consumesReceives(operation) && operation.from !== this.name)
      .map((operation) => host.spawn('receives', this.postReceives(operation)));
    for (const { done } of threads) yield* wait(done);
    yield* endpoint.sendControl(CONTROL_START);
    progress.position = "waiting for the peer's start";
    yield* wait(this.peerStarted);

    progress.startedPs = host.node.now;
    progress.position = 'operations and events';
    const work = this.ownOperations().map((operation) =>
      host.spawn(operation.kind, this.operate(operation)),
    );
    const events = this.scenario.events.filter((event) => event.host === this.name);
    work.push(...this.events.start(events, progress.startedPs));
    for (const { done } of work) yield* wait(done);
    progress.position = 'saying good-bye';
    yield* endpoint.close();
    progress.position = 'done';
    progress.finished = true;
  }

  /** Posts all work requests of an operation, `depth` at a time, and waits for their completions. */
  private *operate(operation: OperationSpec): Sim<void> {
    const { host, progress } = this;
    const source = this.buffers.named(operation.source.region);
    const target = this.buffers.named(operation.target.region);
    yield* sleepUntil(host, progress.startedPs + operation.atPs);
    let outstanding = 0;
    let slot = new Completion<void>();
    for (let k = 0; k < operation.count; k++) {
      while (outstanding >= operation.depth) {
        slot = new Completion<void>(`${operation.kind} ${k - outstanding} of ${operation.count}`);
        yield* wait(slot);
      }
      while (!source.open.done || !target.open.done) {
        yield* wait(source.open);
        yield* wait(target.open);
      }
      outstanding++;
      yield* this.postOne(operation, k, source, target, () => {
        outstanding--;
        slot.resolve();
      });
    }
    while (outstanding > 0) {
      slot = new Completion<void>(`the last ${operation.kind} of ${operation.count}`);
      yield* wait(slot);
    }
    assert(outstanding === 0, 'operations complete once', host.node);
  }

  private *postOne(
    operation: OperationSpec,
    k: number,
    source: Buffer,
    target: Buffer,
    onDone: () => void,
  ): Sim<void> {
    const { endpoint, host, progress } = this;
    const { kind, sizeBytes } = operation;
    const from = placeOf(operation, source, operation.source.offsetBytes, k);
    const to = placeOf(operation, target, operation.target.offsetBytes, k);
    const fresh = operation.refill && kind !== 'read' && !source.inUse(from, sizeBytes);
    const uses = [source.use(from, sizeBytes), target.use(to, sizeBytes)];
    if (fresh) {
      const pattern = hashText(`${this.name} ${operation.queuePair} ${k}`, this.options.seed);
      yield* host.mm.fillResident(source.address + from, sizeBytes, pattern);
    }
    const [local, localOffset, remote, remoteOffset] =
      kind === 'read' ? [target, to, source, from] : [source, from, target, to];
    const postedPs = host.node.now;
    const request = {
      opcode: opcodeOf[kind],
      lkey: local.lkey,
      localAddress: local.address + localOffset,
      length: sizeBytes,
      rkey: remote.rkey,
      remoteAddress: remote.address + remoteOffset,
      immediate: k,
    };
    yield* endpoint.post(this.pairOf(operation), request, (completion) => {
      endpoint.requireSuccess(completion, `${kind} ${k} on '${operation.queuePair}'`);
      progress.count(sizeBytes, postedPs, completion.timePs);
      for (const end of uses) end();
      onDone();
    });
  }

  /** Posts the receives that the peer's operation consumes; ends when enough are posted to begin. */
  private *postReceives(operation: OperationSpec): Sim<void> {
    const { endpoint, host } = this;
    const target = this.buffers.named(operation.target.region);
    const pair = this.pairOf(operation);
    let posted = 0;
    const postNext = function* (this: Scripted): Sim<void> {
      const k = posted++;
      const offset = placeOf(operation, target, operation.target.offsetBytes, k);
      const buffer = {
        lkey: target.lkey,
        localAddress: target.address + offset,
        length: operation.sizeBytes,
      };
      yield* endpoint.postReceive(pair, operation.kind === 'send' ? buffer : undefined, (done) => {
        endpoint.requireSuccess(done, `receive ${k} on '${operation.queuePair}'`);
        if (posted < operation.count) host.spawn('receive', postNext.call(this));
      });
    };
    while (posted < Math.min(operation.count, POSTED_RECEIVES)) yield* postNext.call(this);
  }

  private onControl(words: readonly number[]): void {
    if (words[0] === CONTROL_START) this.peerStarted.resolve();
    else this.events.onControl(words);
  }

  private ownOperations(): OperationSpec[] {
    return this.scenario.operations.filter(({ from }) => from === this.name);
  }

  private pairOf({ queuePair }: OperationSpec): number {
    return this.scenario.queuePairs.findIndex(({ name }) => name === queuePair);
  }
}

/** Offset of operation number `k` in its region: `stride` further each time, wrapping at the end. */
function placeOf(operation: OperationSpec, buffer: Buffer, offset: number, k: number): number {
  const { strideBytes, sizeBytes } = operation;
  if (strideBytes === 0) return offset;
  const places = Math.floor((buffer.spec.sizeBytes - offset - sizeBytes) / strideBytes) + 1;
  return offset + (k % places) * strideBytes;
}

function consumesReceives({ kind }: OperationSpec): boolean {
  return kind === 'send' || kind === 'writeImm';
}
