/** Numbers as people read them: three or four significant digits and a unit that fits. */

/** Nanoseconds as ns, us, ms or s. */
export function formatNs(ns: number): string {
  if (ns < 1e3) return `${significant(ns)} ns`;
  if (ns < 1e6) return `${significant(ns / 1e3)} us`;
  if (ns < 1e9) return `${significant(ns / 1e6)} ms`;
  return `${significant(ns / 1e9)} s`;
}

/** Bytes as B, KiB, MiB or GiB. */
export function formatBytes(bytes: number): string {
  if (bytes < 2 ** 10) return `${bytes} B`;
  if (bytes < 2 ** 20) return `${significant(bytes / 2 ** 10)} KiB`;
  if (bytes < 2 ** 30) return `${significant(bytes / 2 ** 20)} MiB`;
  return `${significant(bytes / 2 ** 30)} GiB`;
}

/** An integer with a separator between thousands. */
export function formatCount(count: number): string {
  return String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, ',');
}

export function formatGbps(gbps: number): string {
  return `${significant(gbps)} Gb/s`;
}

/** How many times `value` is `base`: '1.00x'; '-' where that says nothing. */
export function formatRatio(value: number, base: number): string {
  if (base === 0) return value === 0 ? '=' : '-';
  const ratio = value / base;
  if (ratio === 1) return '=';
  return ratio >= 100 ? `${formatCount(ratio)}x` : `${ratio.toFixed(2)}x`;
}

function significant(value: number): string {
  if (value === 0) return '0';
  const digits = value >= 1000 ? 0 : value >= 100 ? 1 : 2;
  return value.toFixed(digits);
}
