/** What clients do when their process starts another program while a child of vfork keeps its memory. */
import { describe, expect, it } from 'vitest';
import { Gru } from '../../../kernel/clients/gru.ts';
import { Kvm } from '../../../kernel/clients/kvm.ts';
import { Xpmem } from '../../../kernel/clients/xpmem.ts';
import { SystemCallError } from '../../../kernel/errno.ts';
import { PROT_READ, PROT_WRITE, type Sim } from '../../../kernel/index.ts';
import { BASE, makeBench, PAGE } from '../bench.ts';

const RW = PROT_READ | PROT_WRITE;

function* outcome(body: Sim<Uint8Array>): Sim<string> {
  try {
    return [...(yield* body)].join();
  } catch (error) {
    if (error instanceof SystemCallError) return error.errno;
    throw error;
  }
}

describe('a guest, a GRU context and an attacher', () => {
  it('get nothing of the memory of the next program', () => {
    const { host, run } = makeBench();
    const { mm } = host;
    const done = run(
      (function* (): Sim<void> {
        yield* mm.mmap(BASE, 2 * PAGE, RW);
        yield* mm.write(BASE, new Uint8Array(2 * PAGE).fill(1));
        const kvm = yield* Kvm.create(mm);
        kvm.addSlot({ firstGfn: 0, pageCount: 2, address: BASE });
        const vcpu = kvm.createVcpu(new Map([0, 1].map((page) => [page, page])));
        const gru = yield* Gru.open(mm);
        const context = gru.createContext();
        const xpmem = yield* Xpmem.load(host.ram);
        const apid = xpmem.get(yield* xpmem.make(mm, BASE, 2 * PAGE), true);
        const attachment = xpmem.attach(apid, 0, 2 * PAGE);
        const views = [
          (page: number) => vcpu.read(page * PAGE, 1),
          (page: number) => context.read(BASE + page * PAGE, 1),
          (page: number) => attachment.read(page * PAGE, 1),
        ];
        for (const view of views) expect(yield* outcome(view(0))).toBe('1');

        const child = yield* mm.vfork();
        yield* mm.exec();
        yield* mm.mmap(BASE, 2 * PAGE, RW);
        yield* mm.write(BASE, new Uint8Array(2 * PAGE).fill(2));
        for (const view of views) {
          // What they had is the child's now; they are given no more.
          expect(yield* outcome(view(0))).toBe('1');
          expect(yield* outcome(view(1))).toBe('ESRCH');
        }
        yield* child.exit();
        for (const view of views) expect(yield* outcome(view(0))).toBe('ESRCH');
        yield* kvm.destroy();
        yield* gru.close();
        yield* xpmem.unload();
      })(),
    );
    expect(done).toBe(true);
    host.checkLeaks();
  });
});
