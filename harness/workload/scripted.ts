/**
 * The program of one host in a scripted scenario: its operations, the receives it owes the peer, and
 * its events.
 *
 * Set-up on both sides: connect, map and register the regions, bind the windows, tell the peer about
 * them (ADVERT), post receives, say START. Traffic starts when the peer's START is here; all `at`
 * times count from there. Events are the business of `events.ts`. The end: own operations and events
 * done, good-byes exchanged.
 */
import { type AddressHandle, Completion, type Host, type Sim, wait } from '../../kernel/index.ts';
import { assert, hashText } from '../../transport/index.ts';
import { consumesReceive, isAtomic, isSend } from '../scenario/operation-schema.ts';
import { endOf, offsetOf, type Places, placesOf } from '../scenario/ranges.ts';
import { indexOf, type ScenarioIndex, srqAt } from '../scenario/scenario-index.ts';
import type { HostSpec, Mode, OperationSpec, Scenario } from '../scenario/schema.ts';
import { AtomicWords } from './atomic-words.ts';
import { type Buffer, Buffers } from './buffers.ts';
import { CONTROL_START } from './control-message.ts';
import { Endpoint } from './endpoint.ts';
import { Events, sleepUntil } from './events.ts';
import type { Gate } from './gate.ts';
import { Progress } from './progress.ts';
import { Receives, receivesAhead } from './receives.ts';
import { type Window, Windows } from './windows.ts';
import { type Ends, flushOf, requestOf } from './work-request.ts';

/** An operation of this host with everything it needs looked up once. */
interface Plan {
  readonly operation: OperationSpec;
  readonly source: Buffer;
  readonly target: Buffer;
  readonly sources: Places;
  readonly targets: Places;
  /** The window that gives the right to the remote range, and the one that a sendInv invalidates. */
  readonly window: Window | undefined;
  readonly invalidates: Window | undefined;
  /** What has to be open before each work request. */
  readonly gates: readonly Gate[];
  readonly datagram: { readonly ah: AddressHandle; readonly remoteQpn: number } | undefined;
}

export class Scripted {
  readonly progress: Progress;
  private readonly scenario: Scenario;
  private readonly index: ScenarioIndex;
  private readonly name: string;
  private readonly remoteLid: number;
  private readonly endpoint: Endpoint;
  private readonly buffers: Buffers;
  private readonly windows: Windows;
  private readonly receives: Receives;
  private readonly peerStarted = new Completion<void>("the peer's start");
  private readonly events: Events;

  constructor(
    private readonly host: Host,
    private readonly options: { scenario: Scenario; mode: Mode; seed: number; index: number },
  ) {
    const { scenario, seed, index, mode } = options;
    const { operations, sharedReceiveQueues } = scenario;
    const spec = scenario.hosts[index] as HostSpec;
    this.scenario = scenario;
    this.index = indexOf(scenario);
    this.name = spec.name;
    this.remoteLid = 2 - index;
    const planned = this.ownOperations().reduce((sum, { count }) => sum + count, 0);
    this.progress = new Progress(planned);
    this.buffers = new Buffers(host, this.name, scenario.regions, mode);
    this.endpoint = new Endpoint(
      host,
      {
        seed,
        localName: this.name,
        remoteName: scenario.hosts[1 - index]?.name ?? '',
        remoteLid: this.remoteLid,
        mtuBytes: scenario.mtu,
        queuePairs: scenario.queuePairs,
        srqs: sharedReceiveQueues.filter(({ region }) => this.isOwn(region)),
        outstanding: operations.reduce((sum, operation) => sum + this.outstanding(operation), 0),
        waiting: spec,
      },
      (words) => this.onControl(words),
    );
    this.windows = new Windows(host, this.endpoint, this.buffers, scenario);
    this.events = new Events(host, this.endpoint, this.buffers, this.windows);
    this.receives = new Receives(host, this.endpoint, this.buffers, (rkey) =>
      this.events.onInvalidated(rkey),
    );
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
    for (const window of this.windows.own) {
      yield* this.windows.create(window);
      yield* this.events.open(window);
    }
    const words = new AtomicWords(host, this.buffers, this.scenario);
    for (const { done } of this.startReceives()) yield* wait(done);
    yield* endpoint.sendControl(CONTROL_START);
    progress.position = "waiting for the peer's start";
    yield* wait(this.peerStarted);

    progress.startedPs = host.node.now;
    progress.position = 'operations and events';
    const work = this.ownOperations().map((operation) =>
      host.spawn(operation.kind, this.operate(this.planOf(operation))),
    );
    const events = this.scenario.events.filter((event) => event.host === this.name);
    work.push(...this.events.start(events, progress.startedPs));
    for (const { done } of work) yield* wait(done);
    progress.position = 'saying good-bye';
    yield* endpoint.close();
    progress.words = words.check();
    progress.position = 'done';
    progress.finished = true;
  }

  /** Starts posting what the peer's operations consume; each thread ends when enough is there. */
  private startReceives() {
    const { host, index } = this;
    const own = this.scenario.operations.filter(
      (operation) => consumesReceive(operation.kind) && this.isOwn(operation.target.region),
    );
    const threads = this.scenario.sharedReceiveQueues
      .filter(({ region }) => this.isOwn(region))
      .map((srq) => host.spawn('receives', this.receives.fill(srq)));
    for (const operation of own) {
      const pair = index.queuePairs.get(operation.queuePair, '');
      if (srqAt(index, pair, this.name)) continue;
      threads.push(host.spawn('receives', this.receives.postFor(operation, pair)));
    }
    return threads;
  }

  /** Posts all work requests of an operation, `depth` at a time, and waits until they are done. */
  private *operate(plan: Plan): Sim<void> {
    const { host, progress } = this;
    const { operation, gates } = plan;
    yield* sleepUntil(host, progress.startedPs + operation.atPs);
    let outstanding = 0;
    let slot = new Completion<void>();
    for (let k = 0; k < operation.count; k++) {
      while (outstanding >= operation.depth) {
        slot = new Completion<void>(`${operation.kind} ${k - outstanding} of ${operation.count}`);
        yield* wait(slot);
      }
      while (gates.some(({ open }) => !open.done)) {
        for (const { open } of gates) yield* wait(open);
      }
      outstanding++;
      yield* this.postOne(plan, k, () => {
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

  private *postOne(plan: Plan, k: number, onDone: () => void): Sim<void> {
    const { endpoint, host, progress } = this;
    const { operation, source, target, window, invalidates } = plan;
    const { kind, sizeBytes, queuePair } = operation;
    const from = offsetOf(plan.sources, k);
    const to = offsetOf(plan.targets, k);
    const hasData = kind !== 'read' && !isAtomic(kind);
    const fresh = operation.refill && hasData && !source.inUse(from, sizeBytes);
    const uses = [source.use(from, sizeBytes), target.use(to, sizeBytes)];
    if (window) uses.push(window.use(to, sizeBytes));
    if (invalidates) {
      // The key goes with this message: nobody may use it any more, and the peer tells the next one.
      invalidates.close();
      yield* invalidates.drain();
    }
    if (fresh) {
      const pattern = hashText(`${this.name} ${queuePair} ${k}`, this.options.seed);
      yield* host.mm.fillResident(source.address + from, sizeBytes, pattern);
    }
    const postedPs = host.node.now;
    const ends = this.endsOf(plan, from, to);
    const onCompletion = (completion: Parameters<typeof endpoint.requireSuccess>[0]): void => {
      endpoint.requireSuccess(completion, `${kind} ${k} on '${queuePair}'`);
      progress.count(sizeBytes, postedPs, completion.timePs);
      for (const end of uses) end();
      onDone();
    };
    const request = requestOf(operation, k, ends);
    if (operation.flush === null) return yield* endpoint.post(queuePair, request, onCompletion);
    yield* endpoint.post(queuePair, request, (completion) =>
      endpoint.requireSuccess(completion, `${kind} ${k} on '${queuePair}'`),
    );
    yield* endpoint.post(queuePair, flushOf(operation, k, ends), onCompletion);
  }

  private endsOf(plan: Plan, from: number, to: number): Ends {
    const { operation, source, target, window, invalidates, datagram } = plan;
    const [local, localOffset, remote, remoteOffset] =
      operation.kind === 'read' ? [target, to, source, from] : [source, from, target, to];
    return {
      local: {
        address: local.address + localOffset,
        length: operation.sizeBytes,
        lkey: local.lkey,
      },
      remote: { address: remote.address + remoteOffset, rkey: (window ?? remote).rkey },
      ...(datagram ? { datagram } : {}),
      ...(invalidates ? { invalidateRkey: invalidates.rkey } : {}),
    };
  }

  private planOf(operation: OperationSpec): Plan {
    const { buffers, endpoint, host, index, windows } = this;
    const { kind, queuePair, invalidates } = operation;
    const pair = index.queuePairs.get(queuePair, '');
    const source = buffers.named(operation.source.region);
    const target = buffers.named(operation.target.region);
    const places = (side: 'source' | 'target', { spec }: Buffer): Places =>
      placesOf(operation, side, pair, endOf(operation[side], spec, index));
    const name = operation[kind === 'read' ? 'source' : 'target'].window;
    const window = name === null ? undefined : windows.named(name);
    const invalidated = invalidates === null ? undefined : windows.named(invalidates);
    const isDatagram = pair.type === 'UD';
    // Both sides create their queue pairs in the same order, so their numbers are the same.
    const remoteQpn = endpoint.pair(queuePair).qpn;
    return {
      operation,
      source,
      target,
      sources: places('source', source),
      targets: places('target', target),
      window,
      invalidates: invalidated,
      gates: [source, target, window, invalidated].filter((gate) => gate !== undefined),
      datagram: isDatagram
        ? { ah: host.verbs.createAh(endpoint.pd, this.remoteLid), remoteQpn }
        : undefined,
    };
  }

  private onControl(words: readonly number[]): void {
    if (words[0] === CONTROL_START) this.peerStarted.resolve();
    else this.events.onControl(words);
  }

  private ownOperations(): OperationSpec[] {
    return this.scenario.operations.filter(({ from }) => from === this.name);
  }

  private isOwn(region: string): boolean {
    return this.index.regions.get(region, '').host === this.name;
  }

  /** Work requests of this host that an operation may have outstanding at once. */
  private outstanding(operation: OperationSpec): number {
    const { depth, flush, from, kind, target } = operation;
    if (from === this.name) return depth * (flush === null ? 1 : 2);
    const srq = isSend(kind) ? this.index.srqOfRegion.get(target.region) : undefined;
    return srq ? srq.entries : receivesAhead(operation);
  }
}
