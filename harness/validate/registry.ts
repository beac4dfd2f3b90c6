/**
 * Every published figure that the model is held against, in the order in which they are shown.
 */
import type { Figure } from './figure.ts';
import { overcommitFigures } from './overcommit.ts';
import { pageFaultFigures } from './page-faults.ts';
import { registrationFigures } from './registration.ts';

export const figures: readonly Figure[] = [
  ...registrationFigures,
  ...overcommitFigures,
  ...pageFaultFigures,
];
