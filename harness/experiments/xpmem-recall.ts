/**
 * An owner's pages go away while another host maps them (S4): who waits how long, and is any page freed
 * before everybody has acknowledged?
 *
 * Lameter (seed 000, patch 5): "XPmem may have to send out notifications to remote Linux instances and
 * receive confirmation before a page can be freed." Two sharers on another host have all pages; then the
 * owner unmaps them. The recall is SENDs (by batch or by page) and their answers on the same fabric as everything else: packets are
 * lost, other traffic of the same connection is in front of it, a sharer's adapter is silent, or its kernel
 * is. Look at what the munmap takes, at the dead sharers, who are cut off so that the memory manager gets on
 * (after what the connection insists for, or after the time-out of the recall), and at the last column,
 * which must be 0.
 */
import {
  type Host,
  PAGE_BYTES,
  type RecallForm,
  type RemoteSegment,
  type Sim,
  SystemCallError,
} from '../../kernel/index.ts';
import { MS, QPS_ERR, type TimePs, US } from '../../transport/index.ts';
import type { Cell, Experiment, ExperimentResult } from './experiment.ts';
import { runSharing, SEGMENT, type SharingPlan, START, until } from './sharing-stage.ts';

const PAGES = 32;
const SHARERS = 2;
const BUFFER_PAGES = 32;
/** What a recall may take before a sharer is cut off, and what a dead adapter takes: 8 * 4.096 us * 2^8. */
const RECALL_TIMEOUT: TimePs = 50 * MS;
const RETRIES = { timeout: 8, retryCnt: 7 };
const WHEN: TimePs = START + 5 * MS;

interface Case {
  readonly name: string;
  /** One RECALL for all pages of a sharer, 'batch', when not given. */
  readonly form?: RecallForm;
  readonly wire?: SharingPlan['wire'];
  /** What sharer 0 does before and during the recall. */
  readonly disturb?: (segment: RemoteSegment, host: Host) => Sim<void>;
  readonly dead?: number;
}

const CASES: readonly Case[] = [
  { name: 'clean link' },
  { name: 'clean link', form: 'page' },
  { name: '10 % of packets lost', form: 'page', wire: { lossPpm: 100_000 } },
  { name: 'behind bulk RDMA', disturb: transferOnAndOn },
  { name: 'dead adapter', disturb: breakDown, dead: 1 },
  { name: 'dead kernel', disturb: hang, dead: 1 },
];

interface Recall {
  readonly spanPs: TimePs;
  readonly messages: number;
  readonly cutOff: number;
  /** Pages freed while a sharer that was not cut off still had them. */
  readonly freedEarly: number;
  /** What the sharer that was dead says when it uses the segment again. */
  readonly later: string;
}

function recall({ form = 'batch', wire = {}, disturb }: Case, seed: number): Recall {
  let result: Recall = { spanPs: 0, messages: 0, cutOff: 0, freedEarly: 0, later: 'fine' };
  const plan = { pages: PAGES, sharers: SHARERS, bufferPages: BUFFER_PAGES, seed, wire };
  runSharing(
    { ...plan, ...RETRIES, form, recallTimeoutPs: RECALL_TIMEOUT },
    function* ({ host, ends, segments }): Sim<void> {
      const { mm, node } = host;
      const { frames } = mm.memory;
      yield* mm.touch(SEGMENT, PAGES, true);
      yield* until(host, WHEN);
      const pageOf = new Map<number, number>();
      for (let page = 0; page < PAGES; page++) {
        pageOf.set(mm.pages.followPage(SEGMENT / PAGE_BYTES + page, false), page);
      }
      let freedEarly = 0;
      const { onFree } = frames;
      frames.onFree = (frame) => {
        const page = pageOf.get(frame) ?? -1;
        ends.forEach(({ channel }, i) => {
          if (page >= 0 && !channel.broken.done && segments[i]?.has(page)) freedEarly++;
        });
        onFree(frame);
      };
      const start = node.now;
      yield* mm.munmap(SEGMENT, PAGES * PAGE_BYTES);
      const spanPs = node.now - start;
      frames.onFree = onFree;
      yield* until(host, WHEN + 200 * MS);
      const messages = ends.reduce((sum, { counters }) => sum + counters.recallsSent, 0);
      const cutOff = ends.reduce((sum, { counters }) => sum + counters.cutOff, 0);
      result = { ...result, spanPs, messages, cutOff, freedEarly };
    },
    function* (segment, host, index): Sim<void> {
      yield* until(host, START + 1 * MS);
      yield* segment.write(0, new Uint8Array(PAGES * PAGE_BYTES).fill(1));
      if (index !== 0 || disturb === undefined) return;
      yield* disturb(segment, host);
      yield* until(host, WHEN + 150 * MS);
      try {
        yield* segment.read(0, 1);
      } catch (error) {
        if (!(error instanceof SystemCallError)) throw error;
        result = { ...result, later: error.errno };
      }
    },
  );
  return result;
}

/** Reads all pages again and again, past the recall. */
function* transferOnAndOn(segment: RemoteSegment, host: Host): Sim<void> {
  try {
    while (host.node.now < WHEN + 2 * MS) yield* segment.read(0, PAGES * PAGE_BYTES);
  } catch (error) {
    // The owner has unmapped the pages.
    if (!(error instanceof SystemCallError) || error.errno !== 'EFAULT') throw error;
  }
}

function* breakDown({ channel }: RemoteSegment, host: Host): Sim<void> {
  yield* until(host, WHEN - 1 * MS);
  yield* channel.verbs.modifyQp(channel.qp, { state: QPS_ERR });
}

function* hang(segment: RemoteSegment, host: Host): Sim<void> {
  yield* until(host, WHEN - 1 * MS);
  segment.isHung = true;
}

export const xpmemRecall: Experiment = {
  name: 'xpmem-recall',
  systems: ['S4', 'S14'],
  claims: ['C7'],
  title: 'Is a page freed only after every sharer on another host has acknowledged?',
  run(seed): ExperimentResult {
    const rows: Cell[][] = [];
    const spans: TimePs[] = [];
    let [ok, early] = [true, 0];
    for (const each of CASES) {
      const { spanPs, messages, cutOff, freedEarly, later } = recall(each, seed);
      rows.push([each.name, spanPs / US, messages, cutOff, later, freedEarly]);
      spans.push(spanPs);
      early += freedEarly;
      const isDead = each.dead !== undefined;
      if (cutOff !== (each.dead ?? 0) || (isDead && later !== 'EIO')) ok = false;
    }
    const [clean, byPage, lossy, behind, adapter, kernel] = spans;
    const us = (ps: number): string => (ps / US).toFixed(0);
    return {
      columns: ['case', 'munmap_us', 'recalls', 'cut_off', 'then', 'freed_early'],
      rows,
      result:
        `${PAGES} pages of ${SHARERS} sharers: ${us(clean)} us (by page ${us(byPage)}, with loss ` +
        `${us(lossy)}), behind bulk ${us(behind)}, dead adapter ${us(adapter)}, dead kernel ${us(kernel)}; ${early} pages freed early`,
      ok: ok && early === 0 && behind > clean && adapter > 10 * clean && kernel > 10 * clean,
    };
  },
};
