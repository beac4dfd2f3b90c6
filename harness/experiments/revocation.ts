/**
 * Out-of-band revocation (S14): what it costs to ask every sharer, against their number, and what it costs
 * a sharer to get pages back, against the size of its messages.
 *
 * Bell (seed 000): "reclaim becomes a collective communication operation over all region accessors. Makes
 * me nervous", and models with small messages cannot afford it; Lameter: XPMEM does it "and it scales ok",
 * and it is simplest to take down the whole region on reclaim and to check the handle before the next
 * operation. Look at the revocation: asking is one after the other, answering all at once, and the form
 * (page, batch, region) decides how many messages it is. Then at the sharer: an operation of `op_bytes`
 * when it has its pages, and the first one after a revocation of a single page of the owner's.
 */
import {
  type Host,
  MADV_DONTNEED,
  PAGE_BYTES,
  type RecallForm,
  type RemoteSegment,
  type Sim,
} from '../../kernel/index.ts';
import { MS, type TimePs, US } from '../../transport/index.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { runSharing, SEGMENT, START, until } from './sharing-stage.ts';

/** Pages of the segment, and so the longest operation. */
const PAGES = 64;
const SHARER_COUNTS = [1, 2, 4, 8, 16];
const OP_BYTES = [8, 4096, 65536, 262144];
const FORMS: readonly RecallForm[] = ['page', 'batch', 'region'];

/** Time that the owner's reclaim of all pages takes. */
function revoke(form: RecallForm, sharers: number, seed: number): { us: number; messages: number } {
  let result = { us: 0, messages: 0 };
  runSharing(
    { pages: PAGES, sharers, bufferPages: PAGES, form, seed },
    function* ({ host, ends }): Sim<void> {
      const { mm, node } = host;
      yield* mm.touch(SEGMENT, PAGES, true);
      yield* until(host, START + 20 * MS);
      const start = node.now;
      yield* mm.madvise(SEGMENT, PAGES * PAGE_BYTES, MADV_DONTNEED);
      const messages = ends.reduce((sum, { counters }) => sum + counters.recallsSent, 0);
      result = { us: (node.now - start) / US, messages };
    },
    function* (segment, host): Sim<void> {
      yield* until(host, START + 1 * MS);
      yield* segment.write(0, new Uint8Array(PAGES * PAGE_BYTES).fill(1));
    },
  );
  return result;
}

/** Time of a sharer's write with its pages there, and after one of them has been revoked. */
function operate(form: RecallForm, bytes: number, seed: number): { us: number; afterUs: number } {
  let result = { us: 0, afterUs: 0 };
  runSharing(
    { pages: PAGES, sharers: 1, bufferPages: PAGES, form, seed },
    function* ({ host }): Sim<void> {
      yield* host.mm.touch(SEGMENT, PAGES, true);
      yield* until(host, START + 10 * MS);
      yield* host.mm.madvise(SEGMENT, PAGE_BYTES, MADV_DONTNEED);
    },
    function* (segment, host): Sim<void> {
      yield* until(host, START + 1 * MS);
      yield* segment.write(0, new Uint8Array(PAGES * PAGE_BYTES));
      const us = (yield* timeOf(segment, host, bytes)) / US;
      yield* until(host, START + 20 * MS);
      result = { us, afterUs: (yield* timeOf(segment, host, bytes)) / US };
    },
  );
  return result;
}

function* timeOf(segment: RemoteSegment, { node }: Host, bytes: number): Sim<TimePs> {
  const start = node.now;
  yield* segment.write(0, new Uint8Array(bytes));
  return node.now - start;
}

export const revocation: Experiment = {
  name: 'revocation',
  systems: ['S14'],
  claims: ['C7'],
  title:
    'What does revocation by message cost, against the number of sharers and the message size?',
  run(seed): ExperimentResult {
    const rows: Cell[][] = [];
    const revoked = new Map<string, number>();
    for (const form of FORMS) {
      for (const sharers of SHARER_COUNTS) {
        const { us, messages } = revoke(form, sharers, seed);
        revoked.set(`${form} ${sharers}`, us);
        rows.push([form, sharers, messages, us, '', '', '']);
      }
    }
    const ratios = new Map<string, number>();
    // An operation fetches the pages that it misses, by page as in batches.
    for (const form of ['batch', 'region'] as const) {
      for (const bytes of OP_BYTES) {
        const { us, afterUs } = operate(form, bytes, seed);
        ratios.set(`${form} ${bytes}`, afterUs / us);
        rows.push([form, 1, '', '', bytes, us, afterUs]);
      }
    }
    const of = (form: RecallForm, sharers: number): number =>
      revoked.get(`${form} ${sharers}`) as number;
    const ratio = (form: RecallForm, bytes: number): string =>
      (ratios.get(`${form} ${bytes}`) as number).toFixed(1);
    const [one, sixteen] = [of('batch', 1), of('batch', 16)];
    return {
      columns: ['form', 'sharers', 'recalls', 'revoke_us', 'op_bytes', 'op_us', 'op_after_us'],
      rows,
      result:
        `${PAGES} pages from 1 and 16 sharers: ${one.toFixed(0)} and ${sixteen.toFixed(0)} us (by page ` +
        `${of('page', 16).toFixed(0)}). A write after it takes ${ratio('batch', 8)} times its time with ` +
        `8 bytes, ${ratio('batch', 262144)} with 256 KiB; whole region ${ratio('region', 8)}`,
      ok: sixteen > one && sixteen < 16 * one && of('page', 16) > sixteen,
      plot: {
        x: 'sharers',
        lines: ['revoke_us'],
        by: 'form',
        yTitle: `microseconds to revoke ${PAGES} pages`,
      },
    };
  },
};
