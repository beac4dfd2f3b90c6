/**
 * Quantities as people write them, and the integers the model computes with.
 *
 * Every quantity in a scenario carries its unit, because a bare number has been a source of silent
 * mistakes in every simulator that allowed it. The template types let the compiler check the unit;
 * the parsers check it again for data that no compiler saw. This file knows units and nothing else.
 */

/** A span or point of simulated time: '50us'. */
export type Time = `${number}${'ps' | 'ns' | 'us' | 'ms' | 's'}`;
/** A number of bytes: '64KiB'. Decimal units (kB, MB, GB) are powers of 1,000. */
export type Size = `${number}${'B' | 'KiB' | 'MiB' | 'GiB' | 'kB' | 'MB' | 'GB'}`;
/** The rate of a link in each direction: '100Gbps'. */
export type Rate = `${number}${'Mbps' | 'Gbps' | 'Tbps'}`;
/** A part of a whole: '0.1%' or '1000ppm'. */
export type Share = `${number}${'%' | 'ppm'}`;

export const ns = (count: number): Time => `${count}ns`;
export const us = (count: number): Time => `${count}us`;
export const ms = (count: number): Time => `${count}ms`;
export const bytes = (count: number): Size => `${count}B`;
export const kib = (count: number): Size => `${count}KiB`;
export const mib = (count: number): Size => `${count}MiB`;
export const gib = (count: number): Size => `${count}GiB`;
export const gbps = (count: number): Rate => `${count}Gbps`;
export const percent = (count: number): Share => `${count}%`;

/** Picoseconds, or undefined when `value` is not a time of a whole number of picoseconds. */
export const parseTime = parser({ ps: 1, ns: 1e3, us: 1e6, ms: 1e9, s: 1e12 }, true);
/** Bytes, or undefined when `value` is not a size of a whole number of bytes. */
export const parseSize = parser(
  { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, kB: 1e3, MB: 1e6, GB: 1e9 },
  true,
);
/** Gb/s (10^9 bits per second), or undefined. */
export const parseRate = parser({ Mbps: 1e-3, Gbps: 1, Tbps: 1e3 }, false);
/** Parts per million, or undefined when it is not a whole number of them. */
export const parseShare = parser({ '%': 1e4, ppm: 1 }, true);

/** What each parser expects, for error messages. */
export const quantityHelp = {
  time: "a time with a unit, such as '1us' (ps, ns, us, ms, s)",
  size: "a size with a unit, such as '64KiB' (B, KiB, MiB, GiB, kB, MB, GB)",
  rate: "a rate with a unit, such as '100Gbps' (Mbps, Gbps, Tbps)",
  share: "a share with a unit, such as '0.1%' or '1000ppm'",
} as const;

function parser(
  units: Readonly<Record<string, number>>,
  whole: boolean,
): (value: unknown) => number | undefined {
  return (value) => {
    if (typeof value !== 'string') return undefined;
    const match = /^(\d+(?:\.\d+)?)\s?([A-Za-z%]+)$/.exec(value);
    const unit = match ? units[match[2] as string] : undefined;
    if (!match || unit === undefined) return undefined;
    const amount = Number(match[1]) * unit;
    const rounded = Math.round(amount);
    if (!whole) return Number.isFinite(amount) ? amount : undefined;
    // 0.1 % is 1000.0000000000001 ppm in binary; anything further off is not a whole number.
    if (Math.abs(amount - rounded) > 1e-6 * Math.max(1, rounded) * 1e-3) return undefined;
    return Number.isSafeInteger(rounded) ? rounded : undefined;
  };
}
