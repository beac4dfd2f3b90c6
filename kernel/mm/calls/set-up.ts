/**
 * The state that a process starts with, made without time and cost: what a recording says was mapped and
 * present when it began. And the way to ask for the same at the end.
 */
import { Failure } from '../../../transport/index.ts';
import type { MappedFile } from '../files/mapped-file.ts';
import {
  FRAME_ANON_EXCLUSIVE,
  FRAME_SWAP_BACKED,
  ORIGIN_START,
  PAGE_BYTES,
} from '../physical/frames.ts';
import { makePte, PTE_DIRTY, PTE_PRESENT, PTE_WRITE, pteNumber } from '../virtual/page-table.ts';
import { filePageOf, PROT_WRITE, VM_SHARED, type Vma } from '../virtual/vma.ts';
import { kindOf } from './mapping-calls.ts';
import type { SystemCalls } from './system-calls.ts';

/** Pages in a row that are present, and of the same kind. */
export interface ResidentRun {
  readonly address: number;
  readonly pageCount: number;
  /** Memory of the process alone, the shared zero page included; otherwise pages of a file or shared memory. */
  readonly anonymous: boolean;
}

/** See AddressSpace.mapAtStart. */
export function mapAtStart(
  calls: SystemCalls,
  address: number,
  length: number,
  prot: number,
  flags: number,
  file: MappedFile | undefined,
  fileOffset: number,
): void {
  const [start, end] = calls.range('mmap', address, length);
  let kind = kindOf(prot, flags, false, file);
  if (kind.flags & VM_SHARED && file === undefined) {
    const shared = calls.memory.files.createShared('/dev/zero');
    shared.unnamed = true;
    kind = { ...kind, file: shared };
  }
  calls.mm.vmas.insert(start, end, kind, fileOffset);
}

/** See AddressSpace.adopt. */
export function adopt(
  calls: SystemCalls,
  address: number,
  pageCount: number,
  anonymous: boolean | undefined,
): void {
  const { vmas, table } = calls.mm;
  const first = Math.floor(address / PAGE_BYTES);
  for (let page = first; page < first + pageCount; page++) {
    const vma = vmas.find(page * PAGE_BYTES);
    if (vma === undefined) throw calls.notMapped('adopt', page * PAGE_BYTES);
    if (table.get(page) & PTE_PRESENT) continue;
    const isOwn = (vma.flags & VM_SHARED) === 0 && (vma.file === undefined || anonymous !== false);
    if (isOwn) adoptAnonymous(calls, page, vma);
    else adoptFilePage(calls, page, vma);
  }
}

/** See AddressSpace.residency. */
export function residency(calls: SystemCalls): ResidentRun[] {
  const { vmas, table, memory } = calls.mm;
  const runs: { address: number; pageCount: number; anonymous: boolean }[] = [];
  for (const { start, end } of vmas.list()) {
    table.forEachUsed(start / PAGE_BYTES, end / PAGE_BYTES, (page, pte) => {
      if ((pte & PTE_PRESENT) === 0) return;
      const anonymous = memory.frames.files[memory.frames.headOf(pteNumber(pte))] === 0;
      const last = runs.at(-1);
      const isNext = last && last.address + last.pageCount * PAGE_BYTES === page * PAGE_BYTES;
      if (isNext && last.anonymous === anonymous) last.pageCount++;
      else runs.push({ address: page * PAGE_BYTES, pageCount: 1, anonymous });
    });
  }
  return runs;
}

function adoptAnonymous(calls: SystemCalls, page: number, vma: Vma): void {
  const { mm, memory } = calls;
  const { frames, lru, rmap } = memory;
  const frame = allocate(calls);
  const write = (vma.prot & PROT_WRITE) !== 0 ? PTE_WRITE : 0;
  mm.table.set(page, makePte(frame, PTE_PRESENT | PTE_DIRTY | write));
  frames.flags[frame] |= FRAME_SWAP_BACKED | FRAME_ANON_EXCLUSIVE;
  frames.origins[frame] = ORIGIN_START;
  rmap.map(frame, mm.id, page);
  lru.add(frame, false);
}

function adoptFilePage(calls: SystemCalls, page: number, vma: Vma): void {
  const { mm, memory } = calls;
  const { frames, rmap, files } = memory;
  const file = vma.file as MappedFile;
  const index = filePageOf(vma, page);
  let frame = file.frameOf(index);
  if (frame < 0) {
    frame = allocate(calls);
    files.insert(file, index, frame);
    files.makeContent(file, index, frame);
    frames.origins[frame] = ORIGIN_START;
  } else frames.get(frame);
  mm.table.set(page, makePte(frame, PTE_PRESENT));
  rmap.map(frame, mm.id, page);
}

/** @throws Failure E_OPERATION where memory does not suffice */
function allocate(calls: SystemCalls): number {
  const { frames, nodes, node } = calls.memory;
  const home = nodes[calls.mm.homeNode];
  if (home !== undefined && frames.freeCount > home.watermarks.min) {
    const frame = frames.allocate(home.id);
    if (frame >= 0) return frame;
  }
  throw new Failure('E_OPERATION', 'the initial pages do not fit into memory', node.name);
}
