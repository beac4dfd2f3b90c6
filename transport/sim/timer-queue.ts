/**
 * Many one-shot timers behind one engine of a node: retransmission timers of queue pairs, sleeping
 * threads, RxJS timers.
 *
 * Timers are ordered by (time, the number this queue gave them), so the order depends on this queue
 * alone. A timer carries one integer, chosen by whoever armed it; nothing is allocated per timer.
 */
import { NEVER, type TimePs } from './units.ts';

export class TimerQueue {
  private times = new Float64Array(64);
  private numbers = new Float64Array(64);
  private payloads = new Int32Array(64);
  private size = 0;
  private issued = 0;

  /** Adds a timer that hands `payload` back at `at`. */
  add(at: TimePs, payload: number): void {
    if (at === NEVER) return;
    if (this.size === this.times.length) this.grow();
    let place = this.size++;
    const number = this.issued++;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (this.times[parent] <= at) break;
      this.move(parent, place);
      place = parent;
    }
    this.times[place] = at;
    this.numbers[place] = number;
    this.payloads[place] = payload;
  }

  /** When the first timer is due, or NEVER. */
  nextTime(): TimePs {
    return this.size === 0 ? NEVER : this.times[0];
  }

  /** Takes the first timer out and returns its payload. */
  take(): number {
    const payload = this.payloads[0];
    const last = --this.size;
    if (last > 0) {
      const at = this.times[last];
      const number = this.numbers[last];
      const lastPayload = this.payloads[last];
      let place = 0;
      for (;;) {
        let child = 2 * place + 1;
        if (child >= last) break;
        if (child + 1 < last && this.before(child + 1, child)) child++;
        const later =
          this.times[child] > at || (this.times[child] === at && this.numbers[child] > number);
        if (later) break;
        this.move(child, place);
        place = child;
      }
      this.times[place] = at;
      this.numbers[place] = number;
      this.payloads[place] = lastPayload;
    }
    return payload;
  }

  private before(a: number, b: number): boolean {
    return (
      this.times[a] < this.times[b] ||
      (this.times[a] === this.times[b] && this.numbers[a] < this.numbers[b])
    );
  }

  private move(from: number, to: number): void {
    this.times[to] = this.times[from];
    this.numbers[to] = this.numbers[from];
    this.payloads[to] = this.payloads[from];
  }

  private grow(): void {
    const length = this.times.length * 2;
    const times = new Float64Array(length);
    times.set(this.times);
    const numbers = new Float64Array(length);
    numbers.set(this.numbers);
    const payloads = new Int32Array(length);
    payloads.set(this.payloads);
    this.times = times;
    this.numbers = numbers;
    this.payloads = payloads;
  }
}
