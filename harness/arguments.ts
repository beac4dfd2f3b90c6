/**
 * Values of command line options: each parser returns the value or throws Failure E_USAGE with the
 * option as its place.
 */
import { Failure } from '../transport/index.ts';
import { nearest } from './nearest.ts';
import { type Mode, modes } from './scenario/schema.ts';

export const transports = ['ws', 'inproc'] as const;
export type Transport = (typeof transports)[number];

export function parseMode(text: string): Mode {
  return oneOf('--mode', text, modes);
}

/** A list such as `pinned,odp`, each once. */
export function parseModes(text: string): Mode[] {
  const list = text.split(',').map((item) => oneOf('--modes', item.trim(), modes));
  if (new Set(list).size < list.length)
    throw usage('--modes', `'${text}' repeats a mode`, 'each once');
  return list;
}

export function parseTransport(text: string): Transport {
  return oneOf('--transport', text, transports);
}

export function parseSeed(text: string): number {
  const seed = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (seed < 2 ** 32) return seed;
  throw usage('--seed', `'${text}' is not a seed`, 'an integer from 0 to 4294967295');
}

export function parseGapScale(text: string): number {
  const scale = text.trim() === '' ? Number.NaN : Number(text);
  if (scale >= 0 && scale <= 1000) return scale;
  throw usage('--gap-scale', `'${text}' is not a factor`, 'a number from 0 to 1000');
}

/** Seconds on the command line, milliseconds inside. */
export function parsePeerTimeout(text: string): number {
  const seconds = text.trim() === '' ? Number.NaN : Number(text);
  if (seconds >= 0.1 && seconds <= 86_400) return Math.round(seconds * 1000);
  throw usage('--peer-timeout', `'${text}' is not a number of seconds`, 'from 0.1 to 86400');
}

export function usage(place: string, message: string, expected: string): Failure {
  return new Failure('E_USAGE', message, place, expected);
}

function oneOf<T extends string>(option: string, text: string, choices: readonly T[]): T {
  const choice = choices.find((candidate) => candidate === text);
  if (choice !== undefined) return choice;
  const near = nearest(text, choices);
  const hint = near === undefined ? '' : `; did you mean '${near}'?`;
  throw usage(option, `'${text}' is not known${hint}`, choices.join(' or '));
}
