/**
 * What the words that fetchAdd operations count in have to hold at the end: what they held at the
 * start plus everything that both programs added. So an addition that is lost, or done twice, shows.
 *
 * Looks only at words that nothing but fetchAdd changes.
 */
import type { Host } from '../../kernel/index.ts';
import { isAtomic } from '../scenario/operation-schema.ts';
import { endOf, offsetOf, placesOf } from '../scenario/ranges.ts';
import { indexOf, type ScenarioIndex } from '../scenario/scenario-index.ts';
import type { OperationSpec, Scenario } from '../scenario/schema.ts';
import type { Buffers } from './buffers.ts';

const WORD_BYTES = 8;

export class AtomicWords {
  /** What each word has to hold, by address; of those in `predictable` it is known. */
  private readonly expected = new Map<number, bigint>();
  private readonly predictable = new Set<number>();

  /** Takes note of what the words of this host's regions hold now, and of all that will be added. */
  constructor(
    private readonly host: Host,
    buffers: Buffers,
    scenario: Scenario,
  ) {
    const index = indexOf(scenario);
    const replaced = new Set(
      scenario.events.flatMap((event) =>
        event.kind === 'remap' || event.kind === 'dontneed' ? [event.region] : [],
      ),
    );
    const own = new Set(buffers.own.map(({ spec }) => spec.name));
    for (const operation of scenario.operations) {
      const { region } = operation.target;
      if (!isAtomic(operation.kind) || !own.has(region) || replaced.has(region)) continue;
      this.add(operation, buffers.named(region).address, index);
    }
  }

  /** Words that hold what they must, and words that do not. */
  check(): { checked: number; wrong: number } {
    let wrong = 0;
    for (const address of this.predictable) {
      if (this.valueAt(address) !== this.expected.get(address)) wrong++;
    }
    return { checked: this.predictable.size, wrong };
  }

  private add(operation: OperationSpec, base: number, index: ScenarioIndex): void {
    const pair = index.queuePairs.get(operation.queuePair, '');
    const region = index.regions.get(operation.target.region, '');
    const places = placesOf(operation, 'target', pair, endOf(operation.target, region, index));
    const [high, low] = operation.add;
    const amount = (BigInt(high) << 32n) | BigInt(low);
    for (let k = 0; k < Math.min(places.count, operation.count); k++) {
      const address = base + offsetOf(places, k);
      const times = Math.ceil((operation.count - k) / places.count);
      if (!this.expected.has(address)) {
        this.expected.set(address, this.valueAt(address));
        this.predictable.add(address);
      }
      const sum = (this.expected.get(address) ?? 0n) + amount * BigInt(times);
      this.expected.set(address, BigInt.asUintN(64, sum));
      if (operation.kind !== 'fetchAdd') this.predictable.delete(address);
    }
  }

  private valueAt(address: number): bigint {
    const { buffer } = this.host.mm.read(address, WORD_BYTES);
    return new DataView(buffer).getBigUint64(0, true);
  }
}
