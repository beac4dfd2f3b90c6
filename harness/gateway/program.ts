/**
 * The program of the simulated host in a scenario whose peer is external: it connects its queue pairs
 * to the numbers that the scenario gives, carries out its operations, and posts the receives that the
 * peer's operations consume.
 *
 * Nothing is agreed with the peer: there is no program of ours over there. So traffic starts as soon
 * as this side is ready, and data are verified by whoever can see both ends.
 */
import {
  Completion,
  type CompletionQueue,
  type Host,
  type QueuePair,
  type Sim,
  type WorkCompletion,
  wait,
} from '../../kernel/index.ts';
import {
  Failure,
  hashText,
  MS,
  type TimePs,
  WC_SUCCESS,
  wcStatusName,
} from '../../transport/index.ts';
import { consumesReceive, isAtomic, isSend } from '../scenario/operation-schema.ts';
import { endOf, offsetOf, placesOf } from '../scenario/ranges.ts';
import { indexOf, type ScenarioIndex } from '../scenario/scenario-index.ts';
import type { OperationSpec, QueuePairSpec } from '../scenario/schema.ts';
import { type Buffer, Buffers } from '../workload/buffers.ts';
import { create, toRts } from '../workload/connection.ts';
import { sleepUntil } from '../workload/events.ts';
import { Posting } from '../workload/posting.ts';
import { Progress } from '../workload/progress.ts';
import { type Ends, flushOf, piecesOf, requestOf } from '../workload/work-request.ts';
import type { ProgramOptions, Workload } from '../workload/workload.ts';

const COMPLETIONS = 16_384;
/** Receives posted ahead of the messages that consume them. */
const POSTED_RECEIVES = 512;
/** The program stays so long after its work, so that its last ACKs arrive. */
const LINGER_PS: TimePs = 100 * MS;

/** Starts the program; without operations there is none. */
export function startExternalProgram(host: Host, options: ProgramOptions): Workload {
  const program = new ExternalProgram(host, options);
  if (options.scenario.operations.length === 0) program.progress.finished = true;
  else host.spawn('program', program.run());
  return program;
}

class ExternalProgram implements Workload {
  readonly progress: Progress;
  private readonly name: string;
  private readonly index: ScenarioIndex;
  private readonly buffers: Buffers;
  private readonly pairs = new Map<string, QueuePair>();
  private posting: Posting | undefined;

  constructor(
    private readonly host: Host,
    private readonly options: ProgramOptions,
  ) {
    const { scenario, index, mode } = options;
    this.name = scenario.hosts[index]?.name ?? '';
    this.index = indexOf(scenario);
    this.buffers = new Buffers(host, this.name, scenario.regions, mode);
    this.progress = new Progress(this.own.reduce((sum, { count }) => sum + count, 0));
  }

  *run(): Sim<void> {
    const { host, progress, options } = this;
    const { scenario, seed } = options;
    const pd = yield* host.verbs.allocPd();
    const cq: CompletionQueue = yield* host.verbs.createCq(COMPLETIONS);
    this.posting = new Posting(host, cq);
    host.spawn(
      'completions',
      this.posting.dispatch(
        () => true,
        function* (): Sim<void> {},
      ),
    );
    progress.position = 'registering';
    for (const buffer of this.buffers.own) yield* this.buffers.create(buffer, pd, seed);
    progress.position = 'connecting';
    for (const pair of scenario.queuePairs) {
      const qp = yield* create(host, pd, cq, undefined, pair);
      const { qpn: destQpn = 0, psn: receivePsn = 0, localPsn: sendPsn = 0 } = pair.remote ?? {};
      const destLid = this.peerLid;
      const { mtu: mtuBytes } = scenario;
      yield* toRts(host, qp, pair, { destLid, destQpn, mtuBytes, sendPsn, receivePsn });
      this.pairs.set(pair.name, qp);
    }
    progress.startedPs = host.node.now;
    progress.position = 'operations';
    const work = scenario.operations.map((operation) =>
      operation.from === this.name
        ? host.spawn(operation.kind, this.operate(operation))
        : host.spawn('receives', this.receive(operation)),
    );
    for (const { done } of work) yield* wait(done);
    yield* host.sleep(LINGER_PS);
    progress.position = 'done';
    progress.finished = true;
  }

  /** Posts all work requests of an operation, `depth` at a time, and waits until they are done. */
  private *operate(operation: OperationSpec): Sim<void> {
    const { host, progress } = this;
    const { kind, count, depth, sizeBytes, atPs, flush, refill } = operation;
    const source = this.buffers.named(operation.source.region);
    const target = this.buffers.named(operation.target.region);
    const pair = this.index.queuePairs.get(operation.queuePair, '');
    const qp = this.pairOf(operation);
    const sources = placesOf(
      operation,
      'source',
      pair,
      endOf(operation.source, source.spec, this.index),
    );
    const targets = placesOf(
      operation,
      'target',
      pair,
      endOf(operation.target, target.spec, this.index),
    );
    yield* sleepUntil(host, progress.startedPs + atPs);
    const window = new Window(depth);
    for (let k = 0; k < count; k++) {
      yield* window.enter();
      const from = offsetOf(sources, k);
      const to = offsetOf(targets, k);
      const leave = source.use(from, sizeBytes);
      // A buffer that an earlier request still reads stays as it is.
      if (refill && kind !== 'read' && !isAtomic(kind) && window.outstanding === 1) {
        const pattern = hashText(`${this.name} ${operation.queuePair} ${k}`, this.options.seed);
        yield* host.mm.fillResident(source.address + from, sizeBytes, pattern);
      }
      const ends = this.endsOf(operation, pair, source, from, target, to);
      const postedPs = host.node.now;
      const onDone = (completion: WorkCompletion): void => {
        this.requireSuccess(completion, `${kind} ${k} on '${operation.queuePair}'`);
        progress.count(sizeBytes, postedPs, completion.timePs);
        leave();
        window.leave();
      };
      const request = requestOf(operation, k, ends);
      if (flush === null) yield* this.queues.send(qp, request, onDone);
      else {
        yield* this.queues.send(qp, request, (completion) =>
          this.requireSuccess(completion, `${kind} ${k} on '${operation.queuePair}'`),
        );
        yield* this.queues.send(qp, flushOf(operation, k, ends), onDone);
      }
    }
    yield* window.drain();
  }

  /** Posts the receives that an operation of the peer consumes, and waits until it has. */
  private *receive(operation: OperationSpec): Sim<void> {
    const { kind, count, queuePair, receiveSges } = operation;
    if (!consumesReceive(kind)) return;
    const target = this.buffers.named(operation.target.region);
    const pair = this.index.queuePairs.get(queuePair, '');
    const places = placesOf(operation, 'target', pair, target.spec.sizeBytes);
    const window = new Window(POSTED_RECEIVES);
    for (let k = 0; k < count; k++) {
      yield* window.enter();
      const address = target.address + offsetOf(places, k);
      const buffer = { address, length: places.bytes, lkey: target.lkey };
      const sges = isSend(kind) ? piecesOf(buffer, receiveSges) : [];
      yield* this.queues.receive(this.pairOf(operation), sges, false, (completion) => {
        this.requireSuccess(completion, `receive ${k} on '${queuePair}'`);
        window.leave();
      });
    }
    yield* window.drain();
  }

  private endsOf(
    { kind, sizeBytes }: OperationSpec,
    pair: QueuePairSpec,
    source: Buffer,
    from: number,
    target: Buffer,
    to: number,
  ): Ends {
    const [local, localOffset, remote, remoteOffset] =
      kind === 'read' ? [target, to, source, from] : [source, from, target, to];
    const there = remote.spec.remote ?? { address: 0, rkey: 0 };
    const ends = {
      local: { address: local.address + localOffset, length: sizeBytes, lkey: local.lkey },
      remote: { address: there.address + remoteOffset, rkey: there.rkey },
    };
    if (pair.type !== 'UD') return ends;
    const qp = this.pairs.get(pair.name) as QueuePair;
    const ah = this.host.verbs.createAh(qp.pd, this.peerLid);
    return { ...ends, datagram: { ah, remoteQpn: pair.remote?.qpn ?? 0 } };
  }

  private requireSuccess({ status, timePs }: WorkCompletion, what: string): void {
    if (status === WC_SUCCESS) return;
    throw new Failure(
      'E_OPERATION',
      `${what} completed with ${wcStatusName[status] ?? status}`,
      `${this.name} at ${timePs} ps`,
      'IBV_WC_SUCCESS',
    );
  }

  private get peerLid(): number {
    return 2 - this.options.index;
  }

  private get own(): OperationSpec[] {
    return this.options.scenario.operations.filter(({ from }) => from === this.name);
  }

  private get queues(): Posting {
    return this.posting as Posting;
  }

  private pairOf({ queuePair }: OperationSpec): QueuePair {
    return this.pairs.get(queuePair) as QueuePair;
  }
}

/** How many things may be under way at once. */
class Window {
  outstanding = 0;
  private change = new Completion<void>();

  constructor(private readonly size: number) {}

  *enter(): Sim<void> {
    yield* this.until(this.size - 1);
    this.outstanding++;
  }

  leave(): void {
    this.outstanding--;
    this.change.resolve();
  }

  *drain(): Sim<void> {
    yield* this.until(0);
  }

  private *until(most: number): Sim<void> {
    while (this.outstanding > most) {
      this.change = new Completion<void>(`${this.outstanding} work requests to complete`);
      yield* wait(this.change);
    }
  }
}
