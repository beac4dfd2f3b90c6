/**
 * Simulated CPUs and the threads that run on them.
 *
 * Threads are kernel and application threads alike. Ready threads queue first in, first out; a thread
 * goes back to the CPU it ran on last where that is idle, else to the lowest idle one, else it waits.
 * Switching a CPU to another thread costs a context switch. There is no preemption and there are no
 * priorities: slices are short, and what the model measures does not depend on fairness.
 *
 * Each CPU is one engine of the node, so at equal times CPUs act in the order of their numbers.
 */
import { assert, type Engine, NEVER, type Node, type TimePs } from '../../transport/index.ts';
import { Completion, type Sim, type Waiter } from './completion.ts';

/** One simulated thread. `done` resolves when its body returns. */
export class Thread implements Waiter {
  readonly done: Completion<void>;
  /** What the body sees as the value of the yield it resumes from. */
  resumeValue: unknown;
  /** What it sleeps on, for reports of stalled runs. */
  waitingFor: Completion<unknown> | undefined;
  /** CPU number it ran on last, -1 before the first time. */
  lastCpu = -1;
  /** Atomic sections it is in: it must not sleep while there are any. */
  atomicDepth = 0;
  /** Waiting with its CPU busy, the only way to wait inside an atomic section. */
  spinning = false;
  /** Invalidations that it has begun and not ended. */
  invalidations = 0;
  /** CPU time it has spent. */
  cpuPs: TimePs = 0;

  /** `onBehalf`: does the work of a thread that sleeps for it, so changing to it costs nothing. */
  constructor(
    private readonly scheduler: Scheduler,
    readonly name: string,
    readonly body: Sim<unknown>,
    readonly onBehalf: boolean,
  ) {
    this.done = new Completion<void>(`end of thread ${name}`);
  }

  wake(value: unknown): void {
    this.resumeValue = value;
    this.waitingFor = undefined;
    this.scheduler.makeReady(this);
  }
}

class Cpu implements Engine {
  readonly slot: number;
  thread: Thread | undefined;
  /** The thread that ran here last: going on with it needs no context switch. */
  previous: Thread | undefined;

  constructor(
    private readonly scheduler: Scheduler,
    node: Node,
    readonly index: number,
  ) {
    this.slot = node.addEngine(this);
  }

  fire(now: TimePs): void {
    this.scheduler.run(this, now);
  }
}

export class Scheduler {
  /** The thread at work while its body runs. */
  current: Thread | undefined;
  /** Called with a thread that ends in the middle of an invalidation; it is a bug, and says of what. */
  onUnfinished: (thread: Thread) => void = () => {};
  private readonly cpus: Cpu[] = [];
  private readonly alive = new Set<Thread>();
  private ready: Thread[] = [];

  constructor(
    private readonly node: Node,
    cpuCount: number,
    private readonly contextSwitchPs: TimePs,
  ) {
    assert(cpuCount > 0, 'a host needs a CPU', node);
    for (let i = 0; i < cpuCount; i++) this.cpus.push(new Cpu(this, node, i));
  }

  /**
   * Starts a thread at the current time. One that acts `onBehalf` of a thread that is about to sleep
   * for it (a notifier callback, which Linux runs in its caller's context) goes to the head of the run
   * queue and costs no context switch.
   */
  spawn(name: string, body: Sim<unknown>, onBehalf = false): Thread {
    const thread = new Thread(this, name, body, onBehalf);
    this.alive.add(thread);
    this.makeReady(thread, onBehalf);
    return thread;
  }

  /** Simulated time. */
  get now(): TimePs {
    return this.node.now;
  }

  /** Begins a section in which the current thread must not sleep (spinlock held, RCU, interrupt off). */
  enterAtomic(): void {
    assert(this.current !== undefined, 'an atomic section needs a thread', this.node);
    this.current.atomicDepth++;
  }

  leaveAtomic(): void {
    assert(this.current !== undefined && this.current.atomicDepth > 0, 'not atomic', this.node);
    this.current.atomicDepth--;
  }

  /** Waits for `completion` with the CPU kept busy, as atomic context must. */
  *spin<T>(completion: Completion<T>): Sim<T> {
    if (completion.done) return completion.value;
    const thread = this.current;
    assert(thread !== undefined, 'only threads spin', this.node);
    thread.spinning = true;
    yield completion;
    thread.spinning = false;
    return completion.value;
  }

  /** Threads that have not ended, as `name: what it waits for`; says why a run came to rest. */
  unfinished(): string[] {
    return [...this.alive].map(
      (thread) => `${thread.name}: ${thread.waitingFor?.purpose || 'running'}`,
    );
  }

  /** Puts a thread that has something to do onto a CPU, or into the queue for one. */
  makeReady(thread: Thread, first = false): void {
    if (thread.spinning) {
      this.node.queue.arm(this.cpus[thread.lastCpu].slot, this.node.now);
      return;
    }
    const cpu = this.idleCpuFor(thread);
    if (cpu) this.assign(cpu, thread);
    else if (first) this.ready.unshift(thread);
    else this.ready.push(thread);
  }

  /** Runs the thread of `cpu` until it spends time, sleeps or ends. */
  run(cpu: Cpu, now: TimePs): void {
    this.node.queue.arm(cpu.slot, NEVER);
    const thread = cpu.thread;
    assert(thread !== undefined, 'a CPU fires without a thread', this.node);
    this.current = thread;
    let value = thread.resumeValue;
    thread.resumeValue = undefined;
    for (;;) {
      const step = thread.body.next(value);
      if (step.done) {
        this.alive.delete(thread);
        if (thread.invalidations > 0) this.onUnfinished(thread);
        thread.done.resolve();
        break;
      }
      const wanted = step.value;
      if (typeof wanted === 'number') {
        assert(
          wanted >= 0 && Number.isInteger(wanted),
          'a thread asks for a CPU time that is none',
          this.node,
        );
        value = undefined;
        if (wanted === 0) continue;
        thread.cpuPs += wanted;
        this.current = undefined;
        this.node.queue.arm(cpu.slot, now + wanted);
        return;
      }
      if (wanted.done) {
        value = wanted.value;
        continue;
      }
      if (thread.atomicDepth > 0 && !thread.spinning) {
        assert(false, `${thread.name} sleeps while atomic (${wanted.purpose})`, this.node);
      }
      thread.waitingFor = wanted;
      wanted.subscribe(thread);
      if (thread.spinning) {
        this.current = undefined;
        return;
      }
      break;
    }
    this.current = undefined;
    cpu.thread = undefined;
    const next = this.ready.shift();
    if (next) this.assign(cpu, next);
  }

  private assign(cpu: Cpu, thread: Thread): void {
    const sameContext = thread.onBehalf || cpu.previous === undefined || cpu.previous === thread;
    cpu.thread = thread;
    if (!thread.onBehalf) cpu.previous = thread;
    thread.lastCpu = cpu.index;
    this.node.queue.arm(cpu.slot, this.node.now + (sameContext ? 0 : this.contextSwitchPs));
  }

  private idleCpuFor(thread: Thread): Cpu | undefined {
    const last = this.cpus[thread.lastCpu];
    if (last && last.thread === undefined) return last;
    return this.cpus.find((cpu) => cpu.thread === undefined);
  }
}
