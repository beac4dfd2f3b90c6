/**
 * A list of notifiers that is walked without a lock while callbacks sleep (the hlist under RCU of seed
 * 000, patches 1 and 5). A newcomer goes to the head, so a walk that is under way does not meet it; one
 * that leaves is passed over by walks that have not reached it yet, and may still be called by one that
 * has. The grace period is what makes both certain, and the list knows for each client whether it is over.
 */
import { assert, type Node } from '../../../transport/index.ts';
import type { Srcu } from '../../sched/srcu.ts';

/** Somebody on such a list. */
export interface Named {
  readonly name: string;
}

/** One client's place in the list. */
export class Registration<C extends Named> {
  /** The next on the list. A place that was taken off keeps it, for walks that stand there. */
  next: Registration<C> | undefined;
  /** On the list. */
  listed = true;
  /** Grace period after which the last change of the place is certain for everybody. */
  grace: number;

  constructor(
    readonly client: C,
    /** Places are numbered in the order in which they were made: the head has the highest number. */
    readonly number: number,
    grace: number,
  ) {
    this.grace = grace;
  }
}

export class NotifierList<C extends Named> {
  /** The first place to visit; go on with `next`. */
  head: Registration<C> | undefined;
  /** Places made so far: who comes later has a number that is not below it. */
  count = 0;
  private readonly places = new Map<Named, Registration<C>>();
  /** Clients that were freed, so that a late call or entry is recognised. */
  private readonly freed = new WeakSet<Named>();

  constructor(
    private readonly node: Node,
    private readonly srcu: Srcu,
  ) {}

  /** Puts `client` at the head. */
  add(client: C): void {
    const old = this.places.get(client);
    assert(!old?.listed, `${client.name} is registered twice`, this.node);
    const place = new Registration(client, this.count++, this.srcu.state());
    place.next = this.head;
    this.head = place;
    this.places.set(client, place);
    this.freed.delete(client);
  }

  /** Takes `client` off; walks that stand at it still find their way. */
  remove(client: C): void {
    const place = this.places.get(client);
    assert(place?.listed === true, `${client.name} is not registered`, this.node);
    if (this.head === place) this.head = place.next;
    else {
      let before = this.head as Registration<C>;
      while (before.next !== place) before = before.next as Registration<C>;
      before.next = place.next;
    }
    place.listed = false;
    place.grace = this.srcu.state();
  }

  /** True for a client that is on the list. */
  has(client: C): boolean {
    return this.places.get(client)?.listed === true;
  }

  /** Names of the clients on the list whose numbers are in [from, below). */
  names(from: number, below: number): string[] {
    const names: string[] = [];
    for (let place = this.head; place !== undefined; place = place.next) {
      if (place.number >= from && place.number < below) names.push(place.client.name);
    }
    return names;
  }

  /** Forgets a client that was taken off: nobody can call it any more. */
  free(client: C): void {
    const place = this.places.get(client);
    assert(place !== undefined, `${client.name} is freed, and was never registered`, this.node);
    assert(!place.listed, `${client.name} is freed while it is registered`, this.node);
    const safe = this.srcu.poll(place.grace);
    assert(safe, `${client.name} is freed before its grace period is over`, this.node);
    this.places.delete(client);
    this.freed.add(client);
  }

  /** Asserts that `client` may be called; `call` and `why` (the cause) are for the message. */
  checkCall({ client, listed, grace }: Registration<C>, call: string, why: string): void {
    if (listed) return;
    const dead = this.freed.has(client) || this.srcu.poll(grace);
    assert(
      !dead,
      `${call} of ${client.name} is called after its unregistration (${why})`,
      this.node,
    );
  }

  /** Why `client` must not make external references now; undefined when it may, or is none of ours. */
  objection(client: Named): string | undefined {
    const place = this.places.get(client);
    if (place === undefined) return this.freed.has(client) ? 'after its unregistration' : undefined;
    if (!place.listed) return 'after its unregistration';
    return this.srcu.poll(place.grace)
      ? undefined
      : 'before its registration is visible to everybody';
  }
}
