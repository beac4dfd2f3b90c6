/** What the fields of a scenario are made of: quantities with units, names, bounded integers. */
import { z } from 'zod';
import {
  parseRate,
  parseShare,
  parseSize,
  parseTime,
  quantityHelp,
  type Rate,
  type Share,
  type Size,
  type Time,
} from './quantity.ts';

export const time = (): z.ZodType<number, Time> => quantity<Time>(parseTime, quantityHelp.time);
export const size = (): z.ZodType<number, Size> => quantity<Size>(parseSize, quantityHelp.size);
export const rate = (): z.ZodType<number, Rate> => quantity<Rate>(parseRate, quantityHelp.rate);
export const share = (): z.ZodType<number, Share> =>
  quantity<Share>(parseShare, quantityHelp.share);

export const name = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,40}$/, 'a name is lower-case letters, digits and dashes');

export const integer = (low: number, high: number): z.ZodNumber => z.int().min(low).max(high);

/** A 64-bit unsigned value, as two unsigned words with the high one first. */
export const words64 = z
  .union([
    z.int().min(0).max(Number.MAX_SAFE_INTEGER),
    z.string().regex(/^(0x[0-9a-f]{1,16}|\d{1,20})$/i, 'not a decimal or hexadecimal number'),
  ])
  .refine((value) => BigInt(value) < 2n ** 64n, { error: 'does not fit 64 bits' })
  .transform((value): [high: number, low: number] => {
    const bits = BigInt(value);
    return [Number(bits >> 32n), Number(bits & 0xffffffffn)];
  });

function quantity<T extends string>(
  parse: (value: unknown) => number | undefined,
  expected: string,
): z.ZodType<number, T> {
  return z.transform((value: unknown, context) => {
    const amount = parse(value);
    if (amount !== undefined) return amount;
    const message = `${show(value)} is not ${expected.split(',')[0]}`;
    context.issues.push({ code: 'custom', message, params: { expected }, input: value });
    return z.NEVER;
  }) as unknown as z.ZodType<number, T>;
}

function show(value: unknown): string {
  return value === undefined ? 'nothing' : (JSON.stringify(value) ?? String(value));
}
