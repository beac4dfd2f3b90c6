/** Counters of the place where a real wire meets a world; docs/GATEWAY.md says what moves them. */

const names = [
  'frames_in',
  'frames_out',
  'roce_in',
  'roce_out',
  'arp_in',
  'neighbour_in',
  'icmp_in',
  'answers_out',
  'questions_out',
  'bad_icrc',
  'malformed',
  'runts',
  'giants',
  'foreign_destination',
  'foreign_protocol',
  'no_route',
  'unresolved_drops',
  'too_long',
  'impaired_drops',
  'impaired_duplicates',
  'impaired_corruptions',
  'impaired_delays',
] as const;

export type EdgeCounters = Record<(typeof names)[number], number>;

/** All counters at zero. */
export function newEdgeCounters(): EdgeCounters {
  return Object.fromEntries(names.map((name) => [name, 0])) as EdgeCounters;
}

/** Names of all counters, in order. */
export const edgeCounterNames: readonly string[] = names;
