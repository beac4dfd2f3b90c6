/** Comma-separated values (RFC 4180) with a header line. */

export type Cell = string | number;

/** Text of a file with `header` first and a line for each row; columns follow the header. */
export function csv(
  header: readonly string[],
  rows: readonly Readonly<Record<string, Cell>>[],
): string {
  const lines = rows.map((row) => header.map((column) => quote(row[column] ?? '')).join(','));
  return `${[header.join(','), ...lines].join('\n')}\n`;
}

function quote(cell: Cell): string {
  const text = String(cell);
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
