/**
 * The ways of registering message buffers that a replay compares, by name.
 *
 * Owns the names and what each consists of; `registration.ts` builds them.
 */
import { usage } from '../arguments.ts';
import { nearest } from '../nearest.ts';

/** Who tells a registration cache that memory has changed (S16 to S18). */
export type Source = 'none' | 'hooks' | 'ummunotify' | 'perf';

export type SchemeName =
  | 'none'
  | 'cache'
  | 'cache+hooks'
  | 'cache+ummunotify'
  | 'cache+perf'
  | 'odp'
  | 'implicit';

/** What a scheme is made of. */
export type Scheme =
  /** No messages: the memory of the ranks alone. */
  | { readonly kind: 'none' }
  /** Pinned buffers in a registration cache with lazy deregistration. */
  | { readonly kind: 'cache'; readonly source: Source }
  /** A region registered on demand for each buffer, kept for good. */
  | { readonly kind: 'odp' }
  /** One key over the whole address space, on demand. */
  | { readonly kind: 'implicit' };

export const schemes: Readonly<Record<SchemeName, Scheme>> = {
  none: { kind: 'none' },
  cache: { kind: 'cache', source: 'none' },
  'cache+hooks': { kind: 'cache', source: 'hooks' },
  'cache+ummunotify': { kind: 'cache', source: 'ummunotify' },
  'cache+perf': { kind: 'cache', source: 'perf' },
  odp: { kind: 'odp' },
  implicit: { kind: 'implicit' },
};

export const schemeNames = Object.keys(schemes) as SchemeName[];

/** The value of `--scheme`. Throws Failure E_USAGE. */
export function parseScheme(text: string): SchemeName {
  const found = schemeNames.find((name) => name === text);
  if (found !== undefined) return found;
  const near = nearest(text, schemeNames);
  const hint = near === undefined ? '' : `; did you mean '${near}'?`;
  throw usage('--scheme', `'${text}' is not known${hint}`, schemeNames.join(', '));
}

/** The value of `--ranks`: numbers separated by commas, each once. Throws Failure E_USAGE. */
export function parseRanks(text: string): number[] {
  const ranks = text.split(',').map((item) => (/^\d{1,4}$/.test(item.trim()) ? Number(item) : -1));
  if (ranks.includes(-1)) {
    throw usage('--ranks', `'${text}' is no list of ranks`, 'numbers separated by commas');
  }
  if (new Set(ranks).size < ranks.length) {
    throw usage('--ranks', `'${text}' repeats a rank`, 'each once');
  }
  return ranks.sort((a, b) => a - b);
}
