/**
 * Every site of the memory manager that tells the notifiers (S2): the callbacks that come, in order, with
 * range, cause and atomic flag, and the locks that are held.
 */
import { describe, expect, it } from 'vitest';
import { listenAt, sites } from '../../harness/experiments/notifier-sites.ts';

describe('the notifier sites', () => {
  it.each(sites)('$name', (site) => {
    expect(listenAt(site, 1)).toEqual(site.expected);
  });
});
