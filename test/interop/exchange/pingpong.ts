/**
 * Owns the TCP exchange of rdma-core's ibv_rc_pingpong, ibv_uc_pingpong and ibv_ud_pingpong: each end
 * says its address once, the client first, and the client ends with `done`. Does not own the queue
 * pairs (tools.ts).
 */
import { ExchangeError, type Line } from './line.ts';

/** An end of a connection, as the exchange has it. */
export interface PingpongAddress {
  readonly lid: number;
  readonly qpn: number;
  readonly psn: number;
  readonly gid: Buffer;
}

const FORM = /^([0-9a-f]{4}):([0-9a-f]{6}):([0-9a-f]{6}):([0-9a-f]{32})$/;
export const ADDRESS_BYTES = 52;
const DONE = Buffer.from('done\0');

export function encodeAddress({ lid, qpn, psn, gid }: PingpongAddress): Buffer {
  return Buffer.from(`${hex(lid, 4)}:${hex(qpn, 6)}:${hex(psn, 6)}:${gid.toString('hex')}\0`);
}

export function decodeAddress(bytes: Buffer): PingpongAddress {
  const match = FORM.exec(bytes.toString('latin1', 0, ADDRESS_BYTES - 1));
  if (match === null)
    throw new ExchangeError(`not a pingpong address: ${JSON.stringify(String(bytes))}`);
  const [, lid, qpn, psn, gid] = match as unknown as [string, string, string, string, string];
  return {
    lid: Number.parseInt(lid, 16),
    qpn: Number.parseInt(qpn, 16),
    psn: Number.parseInt(psn, 16),
    gid: Buffer.from(gid, 'hex'),
  };
}

/**
 * The server's half. It connects its queue pair before it answers, because the client sends as soon
 * as it has the answer.
 */
export async function servePingpong(
  line: Line,
  mine: PingpongAddress,
  connect: (theirs: PingpongAddress) => Promise<void>,
): Promise<void> {
  await connect(decodeAddress(await line.read(ADDRESS_BYTES)));
  line.write(encodeAddress(mine));
  const done = await line.read(DONE.length);
  if (!done.equals(DONE)) throw new ExchangeError(`the client ended with ${done.toString('hex')}`);
}

/** The client's half: its queue pair is connected when it says that it is done. */
export async function joinPingpong(
  line: Line,
  mine: PingpongAddress,
  connect: (theirs: PingpongAddress) => Promise<void>,
): Promise<void> {
  line.write(encodeAddress(mine));
  await connect(decodeAddress(await line.read(ADDRESS_BYTES)));
  line.write(DONE);
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
