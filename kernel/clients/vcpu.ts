/**
 * A vcpu of a virtual machine: the guest's accesses to its memory, by guest virtual address.
 *
 * An access uses the shadow table's translation where there is one and takes a shadow page fault where
 * there is none. Simulated threads run vcpus with `yield*`. Owns nothing but the guest's page table.
 */
import { SystemCallError } from '../errno.ts';
import { PAGE_BYTES } from '../mm/physical/frames.ts';
import type { Sim } from '../sched/completion.ts';
import { readFrame, writeFrame } from './frame-bytes.ts';
import type { Kvm } from './kvm.ts';

export class Vcpu {
  /** In its guest: a flush has to interrupt it. */
  running = false;

  /** `space` numbers its shadow table; `pages` are guest frames by guest virtual page. */
  constructor(
    private readonly kvm: Kvm,
    private readonly pages: ReadonlyMap<number, number>,
    private readonly space: number,
  ) {}

  /**
   * The bytes that the guest reads at `address`.
   * @throws SystemCallError EFAULT where the guest maps nothing, or what it maps is no memory
   */
  *read(address: number, length: number): Sim<Uint8Array> {
    const bytes = new Uint8Array(length);
    const { frames } = this.kvm.mm.memory;
    yield* this.walk(address, length, false, (frame, within, done, piece) =>
      readFrame(frames, frame, within, bytes, done, piece),
    );
    return bytes;
  }

  /** The guest writes bytes to `address`. @throws SystemCallError EFAULT, as read */
  write(address: number, bytes: Uint8Array): Sim<void> {
    const { frames } = this.kvm.mm.memory;
    return this.walk(address, bytes.length, true, (frame, within, done, piece) =>
      writeFrame(frames, frame, within, bytes, done, piece),
    );
  }

  private *walk(
    address: number,
    length: number,
    write: boolean,
    use: (frame: number, within: number, done: number, piece: number) => void,
  ): Sim<void> {
    const { kvm, space } = this;
    this.running = true;
    try {
      for (let done = 0; done < length; ) {
        const page = Math.floor((address + done) / PAGE_BYTES);
        const within = address + done - page * PAGE_BYTES;
        const piece = Math.min(length - done, PAGE_BYTES - within);
        const gfn = this.pages.get(page);
        if (gfn === undefined) {
          const where = `0x${(address + done).toString(16)} is not mapped by the guest`;
          throw new SystemCallError('EFAULT', 'kvm', where, kvm.mm.name, 'an address it maps');
        }
        let frame = kvm.access(space, page, write);
        while (frame < 0) {
          this.running = false;
          yield* kvm.fault(space, page, gfn, write);
          this.running = true;
          frame = kvm.access(space, page, write);
        }
        // The access itself is at this moment; nobody can take the page away before it has happened.
        use(frame, within, done, piece);
        done += piece;
        yield kvm.costs.guestAccessPs;
      }
    } finally {
      this.running = false;
    }
  }
}
