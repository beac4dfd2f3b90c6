/** Queue pairs of the rcpeers that the text beside a capture lists. */
import {
  ACCESS_FLUSH_GLOBAL,
  ACCESS_FLUSH_PERSISTENT,
  ACCESS_LOCAL_WRITE,
  ACCESS_MW_BIND,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  ACCESS_ZERO_BASED,
  Failure,
  QPT_RC,
  QPT_UC,
  QPT_UD,
} from '../../transport/index.ts';
import {
  type CaptureText,
  type CommandText,
  type PeerText,
  parseGid,
  type RegionText,
  type Words,
} from './rcpeer-text.ts';
import type { ConnectionSetup, QueuePairSetup, RegionSetup } from './setup.ts';

const types: Readonly<Record<string, number>> = { rc: QPT_RC, uc: QPT_UC, ud: QPT_UD };

const letters: Readonly<Record<string, number>> = {
  l: ACCESS_LOCAL_WRITE,
  r: ACCESS_REMOTE_READ,
  w: ACCESS_REMOTE_WRITE,
  a: ACCESS_REMOTE_ATOMIC,
  b: ACCESS_MW_BIND,
  z: ACCESS_ZERO_BASED,
  g: ACCESS_FLUSH_GLOBAL,
  p: ACCESS_FLUSH_PERSISTENT,
};

/** rcpeer's rights of a region, of a queue pair and of a window, where it is not told any. */
const REGION_ACCESS = 'lrwa';
const QUEUE_PAIR_ACCESS = 'lrwagp';
const UD_QKEY = 0x11111111;
/** Path MTUs that rcpeer knows; it takes everything else for 1024. */
const MTUS: readonly number[] = [256, 512, 2048, 4096];

/** IBV_ACCESS_* of rcpeer's letters. */
export function accessOf(text: string): number {
  let access = 0;
  for (const letter of text) access |= letters[letter] ?? 0;
  return access;
}

/** A region as a command or an option registered it. */
export function regionSetup(region: RegionText, words: Words): RegionSetup {
  return {
    ...region,
    access: accessOf(words.text('access') ?? REGION_ACCESS),
    isOnDemand: words.number('odp') !== 0,
  };
}

/** The attributes that connect, init, rtr and rts set, with rcpeer's own values where none is given. */
export function connectionSetup(words: Words, place: string): ConnectionSetup {
  const mtu = words.number('mtu', 1024);
  return {
    remoteGid: words.has('gid') ? parseGid(words.text('gid') as string, place) : '',
    remoteQpn: words.number('qpn'),
    receivePsn: words.number('psn') & 0xffffff,
    mtu: MTUS.includes(mtu) ? mtu : 1024,
    timeout: words.number('timeout', 14),
    retry: words.number('retry', 7),
    rnrRetry: words.number('rnr', 7),
    minRnrTimer: words.number('minrnr', 12),
    maxRdAtomic: words.number('rd', 16),
    maxDestRdAtomic: words.number('drd', 16),
    qkey: words.number('qkey', UD_QKEY),
    access: accessOf(words.text('dacc') ?? QUEUE_PAIR_ACCESS) & ~ACCESS_ZERO_BASED,
  };
}

/** One queue pair for each rcpeer, in the order of the text. Throws Failure E_SETUP_INVALID. */
export function textSetups(text: CaptureText): QueuePairSetup[] {
  return text.peers.map((peer, index) => {
    const program = text.commands.filter((command) => command.peer === index);
    return setupOf(peer, program);
  });
}

function setupOf(peer: PeerText, program: readonly CommandText[]): QueuePairSetup {
  const { name, options, gid, qpn, psn, region } = peer;
  const type = types[peer.type];
  if (type === undefined) {
    throw new Failure('E_SETUP_INVALID', `'${peer.type}' is no service`, name, 'rc, uc or ud');
  }
  return {
    name,
    gid,
    qpn,
    type,
    sendPsn: psn,
    sendEntries: options.number('sq', 256),
    receiveEntries: options.number('rq', 256),
    sigAll: options.number('sigall') !== 0,
    regions: region === undefined ? [] : [regionSetup(region, options)],
    program,
    connections: program
      .filter((command) => command.name === 'connect' || command.name === 'rtr')
      .map(({ words, place }) => connectionSetup(words, place)),
  };
}
