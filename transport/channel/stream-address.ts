/**
 * Sockets that carry a plain stream: `unix:PATH` and `tcp:HOST:PORT`, and how to listen on one.
 *
 * Nothing on such a stream says who speaks, so beyond loopback nobody is listened to.
 */
import { stat, unlink } from 'node:fs/promises';
import { createConnection, createServer, isIP, type Server } from 'node:net';
import { isAbsolute, resolve } from 'node:path';
import { Failure } from '../sim/failure.ts';

/** Where a stream socket is. */
export interface StreamAddress {
  /** As given. */
  readonly text: string;
  readonly endpoint: { readonly path: string } | { readonly host: string; readonly port: number };
}

const EXPECTED = 'unix:PATH or tcp:HOST:PORT';
/** The longest path that fits sockaddr_un on Linux, without its final zero. */
const MAX_PATH_BYTES = 107;

/** Reads an address. @throws Failure E_ADDRESS. */
export function parseStreamAddress(text: string): StreamAddress {
  const [, scheme, rest = ''] = /^(unix|tcp):(.*)$/s.exec(text) ?? [];
  if (scheme === undefined) throw new Failure('E_ADDRESS', 'not an address', text, EXPECTED);
  if (scheme === 'unix') {
    const path = isAbsolute(rest) ? rest : resolve(rest);
    const bytes = Buffer.byteLength(path);
    if (rest === '' || rest.includes('\0') || bytes > MAX_PATH_BYTES) {
      const problem = rest === '' ? 'no path' : `a path of ${bytes} bytes`;
      throw new Failure('E_ADDRESS', problem, text, `a path of up to ${MAX_PATH_BYTES} bytes`);
    }
    return { text, endpoint: { path } };
  }
  const [, host = '', digits = ''] = /^(.+):(\d{1,5})$/.exec(rest) ?? [];
  const port = Number(digits);
  if (host === '' || port > 65_535) throw new Failure('E_ADDRESS', 'not HOST:PORT', text, EXPECTED);
  return { text, endpoint: { host: host.replace(/^\[(.*)\]$/, '$1'), port } };
}

/**
 * A server that listens on `address`. A unix socket that nobody serves any more is replaced. With
 * `allowHalfOpen` a client that has said all may still be answered.
 * @throws Failure E_ADDRESS (beyond loopback), E_LISTEN
 */
export async function listenOnStream(
  address: StreamAddress,
  { allowHalfOpen = false }: { readonly allowHalfOpen?: boolean } = {},
): Promise<Server> {
  const { text, endpoint } = address;
  if ('host' in endpoint && !isLoopback(endpoint.host)) {
    throw new Failure(
      'E_ADDRESS',
      'anyone could connect',
      text,
      'a loopback address, or unix:PATH',
    );
  }
  try {
    return await listenOnce(endpoint, allowHalfOpen);
  } catch (error) {
    const isStale =
      (error as NodeJS.ErrnoException).code === 'EADDRINUSE' &&
      'path' in endpoint &&
      (await isAbandoned(endpoint.path));
    if (!isStale) throw new Failure('E_LISTEN', (error as Error).message, text);
  }
  try {
    await unlink((endpoint as { path: string }).path);
    return await listenOnce(endpoint, allowHalfOpen);
  } catch (error) {
    throw new Failure('E_LISTEN', (error as Error).message, text);
  }
}

function listenOnce(endpoint: StreamAddress['endpoint'], allowHalfOpen: boolean): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer({ allowHalfOpen });
    server.once('error', reject);
    server.listen(endpoint, () => {
      server.off('error', reject);
      resolve(server);
    });
  });
}

/** Whether a unix socket is left over from a process that is gone. Other files are nobody's to take. */
async function isAbandoned(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  if (!found?.isSocket()) return false;
  return await new Promise((resolve) => {
    const probe = createConnection({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });
}

function isLoopback(host: string): boolean {
  return isIP(host) === 4 ? host.startsWith('127.') : host === 'localhost' || host === '::1';
}
