/**
 * Where processes meet: `ws://host:port` or `ws+unix:/path`, and which of these can be trusted.
 */
import { isIP } from 'node:net';
import { Failure } from '../sim/failure.ts';

export interface Address {
  /** As given. */
  readonly url: string;
  /** What to listen on or to connect to. */
  readonly endpoint: { readonly path: string } | { readonly host: string; readonly port: number };
  /** Only processes of this machine can be at the other end. */
  readonly isLoopback: boolean;
}

const EXPECTED = 'ws://host:port or ws+unix:/path';

/** Reads an address. @throws Failure E_ADDRESS. */
export function parseAddress(url: string): Address {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (!parsed) throw new Failure('E_ADDRESS', 'not a URL', url, EXPECTED);
  const { protocol, pathname } = parsed;
  if (parsed.username || parsed.password || parsed.search || parsed.hash) {
    throw new Failure('E_ADDRESS', 'more than an address', url, EXPECTED);
  }
  if (protocol === 'ws+unix:') {
    // ws takes what stands behind a colon for the path of a request, and decodes nothing.
    if (parsed.host !== '' || !pathname.startsWith('/') || pathname.includes(':')) {
      throw new Failure('E_ADDRESS', 'not an absolute path without colons', url, EXPECTED);
    }
    return { url, endpoint: { path: pathname }, isLoopback: true };
  }
  if (protocol !== 'ws:') throw new Failure('E_ADDRESS', `scheme ${protocol}`, url, EXPECTED);
  if (pathname !== '/') throw new Failure('E_ADDRESS', `path ${pathname}`, url, EXPECTED);
  const host = parsed.hostname.replace(/^\[|\]$/g, '');
  const port = parsed.port === '' ? 80 : Number(parsed.port);
  return { url, endpoint: { host, port }, isLoopback: isLoopbackHost(host) };
}

function isLoopbackHost(host: string): boolean {
  if (isIP(host) === 4) return host.startsWith('127.');
  return host === 'localhost' || host === '::1';
}
