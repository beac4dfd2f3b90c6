/** Captures of real hosts conform, and every rule of the profile is needed by one of them. */
import { readdirSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { conformFile } from '../../harness/conform/conform.ts';
import { rxeProfile } from '../../harness/conform/rxe-profile.ts';

/** Rules by which captures depart; what is not listed conforms without any. */
const expected: Readonly<Record<string, readonly string[]>> = {
  rc_bad_icrc: ['altered-in-flight'],
  rc_bad_opcode: ['altered-in-flight', 'rxe-reserved-opcode'],
  rc_bad_opcode_seq: ['altered-in-flight'],
  rc_misaligned_atomic: ['altered-in-flight'],
  rc_flush: ['rxe-flush-icrc'],
  rc_odp: ['rxe-on-demand-offset'],
  rc_recv_bad_lkey: ['rxe-receive-protection-status'],
  rc_recv_too_small: ['rxe-receive-too-small'],
  rc_rnr: ['rxe-nak-after-rnr'],
  rc_rnr_exceeded: ['rxe-nak-after-rnr'],
  rc_rnr_write_imm: ['rxe-rnr-acks-nothing'],
  tool_netem_loss: ['lost-before-capture'],
  uc: ['rxe-uc-stays-lost'],
  atomic_write_again: ['rxe-address-lost'],
  delivered_late: ['delivered-late'],
  duplicate_ack: ['rxe-duplicate-ack-psn'],
  flush_again: ['rxe-address-lost', 'rxe-flush-again', 'rxe-flush-icrc'],
  invalidate_flag: ['rxe-invalidate-flag'],
  lossy: ['rxe-sent-again'],
  rd_exceeded: ['rxe-max-dest-rd-atomic'],
  read_of_nothing_again: ['rxe-read-of-nothing-again'],
  read_resumed: ['rxe-read-resumed-in-the-middle'],
  retry_for_ever: ['rxe-retry-for-ever'],
  uc_send_cut: ['rxe-uc-stays-lost'],
  uc_too_small: ['rxe-receive-too-small'],
};
/** Frames that are no part of a conversation: management datagrams, or those after a rule ended it. */
const uncompared: Readonly<Record<string, number>> = {
  tool_rping: 5,
  tool_udaddy: 2,
  retry_for_ever: 1,
};

const needed = new Set<string>();

describe.each(['../captures/', 'captures/'])('captures of %s', (folder) => {
  const path = new URL(folder, import.meta.url).pathname;
  const names = readdirSync(path).filter((name) => name.endsWith('.pcap'));
  it.each(names)('%s conforms', async (name) => {
    const { result } = await conformFile(path + name);
    const key = name.replace('.pcap', '');
    expect(result.reason).toBe('');
    expect(result.conforms).toBe(true);
    expect(result.compared).toBe(result.frames - (uncompared[key] ?? 0));
    const rules = [...new Set(result.departures.map(({ rule }) => rule))].sort();
    expect(rules).toEqual(expected[key] ?? []);
    for (const rule of rules) needed.add(rule);
  });
});

afterAll(() => {
  // A rule that nothing needs could excuse anything.
  expect(rxeProfile.map(({ name }) => name).filter((name) => !needed.has(name))).toEqual([]);
});
