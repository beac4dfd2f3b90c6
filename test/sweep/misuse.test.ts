/**
 * Misuse between two real adapters: what each side is told (completions, asynchronous events, the
 * NAK between them), that nothing else happens, and that no byte of either memory changes.
 *
 * Host a does what is wrong, or meets a host b that is; b answers. The responder alone, packet by
 * packet, is in `test/hca/rc-misuse.test.ts` and its neighbours.
 */
import { describe, expect, it } from 'vitest';
import {
  ACCESS_FLUSH_GLOBAL,
  ACCESS_LOCAL_WRITE,
  ACCESS_MW_BIND,
  ACCESS_READ,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  ACCESS_WRITE,
  BURST,
  BUS_RECV_DOORBELL,
  BUS_SRQ_DOORBELL,
  CMD_ALLOC_MW,
  CMD_ALLOC_PD,
  CMD_CREATE_MKEY,
  CMD_DESTROY_MKEY,
  CQE_RECEIVE,
  EVENT_QP_ACCESS_ERR,
  EVENT_QP_LAST_WQE_REACHED,
  EVENT_QP_REQ_ERR,
  FRAME_WORDS,
  type FramePool,
  type LoggedRecord,
  OP_RESPONSE,
  opFlags,
  PAYLOAD_BYTES,
  PKEY_DEFAULT,
  QPS_ERR,
  QPS_INIT,
  QPS_RTR,
  QPT_UC,
  QPT_UD,
  RC_SEND_FIRST,
  RC_SEND_LAST,
  RC_SEND_MIDDLE,
  RC_WRITE_FIRST,
  RC_WRITE_MIDDLE,
  RC_WRITE_ONLY,
  SEND_FENCE,
  SEND_INLINE,
  SEND_SIGNALED,
  UC_SEND_ONLY,
  US,
  W_AETH,
  W_BTH_FLAGS,
  W_DEST_QPN,
  W_DMA_BYTES,
  W_LIDS,
  W_OPCODE,
  W_PKEY,
  W_PSN,
  W_RKEY,
  WC_LOC_ACCESS_ERR,
  WC_LOC_LEN_ERR,
  WC_LOC_PROT_ERR,
  WC_LOC_QP_OP_ERR,
  WC_MW_BIND_ERR,
  WC_REM_ACCESS_ERR,
  WC_REM_INV_REQ_ERR,
  WC_REM_OP_ERR,
  WC_RETRY_EXC_ERR,
  WC_RNR_RETRY_EXC_ERR,
  WC_SUCCESS,
  WC_WR_FLUSH_ERR,
  WR_ATOMIC_CMP_AND_SWP,
  WR_ATOMIC_FETCH_AND_ADD,
  WR_ATOMIC_WRITE,
  WR_BIND_MW,
  WR_FLUSH,
  WR_LOCAL_INV,
  WR_RDMA_READ,
  WR_RDMA_WRITE,
  WR_RDMA_WRITE_WITH_IMM,
  WR_SEND,
  WR_SEND_WITH_IMM,
  WR_SEND_WITH_INV,
} from '../../transport/index.ts';
import type { BareHost, BareSge, BareWork } from '../fixtures/bare-host.ts';
import { READY_PS, REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE, Pair, type PairOptions } from '../fixtures/pair.ts';

const QPN = 0x11;
const SIZE = 1 << 16;
const MTU = 1024;
const QKEY = 0x1234;
/** NAK syndromes. */
const INVALID = 0x61;
const ACCESS = 0x62;
const OPERATION = 0x63;
const EVERYTHING =
  ACCESS_LOCAL_WRITE |
  ACCESS_REMOTE_WRITE |
  ACCESS_REMOTE_READ |
  ACCESS_REMOTE_ATOMIC |
  ACCESS_FLUSH_GLOBAL;
/** Keys of both hosts besides REGION_KEY, over the same memory. */
const FOREIGN = (2 << 8) | 7;
const READ_ONLY = (3 << 8) | 7;
const WRITE_ONLY = (4 << 8) | 7;
const GONE = (5 << 8) | 7;
const BINDABLE = (6 << 8) | 7;
const FLUSHED = WC_WR_FLUSH_ERR;

const local = { lkey: REGION_KEY, address: BASE, length: 64 };
const remote = { rkey: REGION_KEY, remote: BASE + 8192 };
const write: BareWork = { opcode: WR_RDMA_WRITE, ...local, ...remote };
/** Waits for the READs and atomics before it, so that it does not leave where one of them fails. */
const fenced: BareWork = { ...write, flags: SEND_SIGNALED | SEND_FENCE };
const read: BareWork = { opcode: WR_RDMA_READ, ...local, ...remote };
const send: BareWork = { opcode: WR_SEND, ...local };
const add: BareWork = {
  opcode: WR_ATOMIC_FETCH_AND_ADD,
  ...local,
  ...remote,
  length: 8,
  compareAdd: 1n,
};
const swap: BareWork = { ...add, opcode: WR_ATOMIC_CMP_AND_SWP, compareAdd: 0n, swap: 1n };
const atomicWrite: BareWork = { opcode: WR_ATOMIC_WRITE, ...local, ...remote, length: 8 };
const flush: BareWork = { opcode: WR_FLUSH, ...remote, length: 64, immediate: 1 };
const datagram: BareWork = { ...send, ud: { qpn: QPN, qkey: QKEY, dlid: 2 } };
const room: readonly BareSge[] = [{ address: BASE + 16_384, length: 4096, lkey: REGION_KEY }];
/** Enough behind a datagram's header. */
const small: readonly BareSge[] = [{ address: BASE + 16_384, length: 32, lkey: REGION_KEY }];

interface Case {
  /** What a posts, in this order. */
  readonly works: readonly BareWork[];
  /** Statuses of a's completions, in order. */
  readonly a: readonly number[];
  /** Syndrome of the NAK that a receives; undefined: there is none. */
  readonly nak?: number;
  /** Receives that b has posted, and the statuses with which they complete. */
  readonly posted?: readonly (readonly BareSge[])[];
  readonly b?: readonly number[];
  readonly eventsA?: readonly number[];
  readonly eventsB?: readonly number[];
  readonly options?: PairOptions;
  /** A counter of b that must have moved. */
  readonly counter?: string;
  /** What else b does before. */
  readonly prepareB?: (host: BareHost) => void;
  /** Bytes of b, from BASE, that good work requests change, from and to. */
  readonly changes?: readonly [number, number];
}

const denied = { a: [WC_REM_ACCESS_ERR, FLUSHED], nak: ACCESS, eventsB: [EVENT_QP_ACCESS_ERR] };
const invalid = { a: [WC_REM_INV_REQ_ERR, FLUSHED], nak: INVALID, eventsB: [EVENT_QP_REQ_ERR] };
const gaveUp = { a: [WC_RETRY_EXC_ERR, FLUSHED] };
const onB = (setUpB: PairOptions['setUpB']): { options: PairOptions } => ({
  options: setUpB ? { setUpB } : {},
});

/** A bad one of each operation that names remote memory, with a good one behind it. */
function eachRemote(change: Partial<BareWork>, rights = ''): [string, readonly BareWork[]][] {
  const all: [string, BareWork][] = [
    ['WRITE', write],
    ['WRITE with immediate', { ...write, opcode: WR_RDMA_WRITE_WITH_IMM }],
    ['READ', read],
    ['FETCH_ADD', add],
    ['CMP_SWAP', swap],
    ['ATOMIC_WRITE', atomicWrite],
    ['FLUSH', flush],
  ];
  return all.map(([name, work]) => [`${name}${rights}`, [{ ...work, ...change }, write]]);
}

function table(what: string, change: Partial<BareWork>): Record<string, Case> {
  return Object.fromEntries(
    eachRemote(change).map(([name, works]): [string, Case] => {
      const hasImmediate = works[0]?.opcode === WR_RDMA_WRITE_WITH_IMM;
      const b = [hasImmediate ? WC_LOC_ACCESS_ERR : FLUSHED];
      // What its receive tells b need not come as an event, too.
      const eventsB = hasImmediate ? [] : [EVENT_QP_ACCESS_ERR];
      return [`${name}: ${what}`, { works, ...denied, posted: [room], b, eventsB }];
    }),
  );
}

const reliable: Record<string, Case> = {
  ...table('a key that was never given', { rkey: 0x6307 }),
  ...table('another variant of a key', { rkey: REGION_KEY + 1 }),
  ...table('a key of another protection domain', { rkey: FOREIGN }),
  ...table('the key of a region that is gone', { rkey: GONE }),
  ...table('a range that ends behind the region', { remote: BASE + SIZE - 4 - 3 }),
  ...table('a range that starts before the region', { remote: BASE - 8 }),
  ...table('an address above 2^53', { remote: 2 ** 63 }),
  'WRITE: a region without REMOTE_WRITE': {
    works: [{ ...write, rkey: READ_ONLY }, write],
    ...denied,
  },
  'ATOMIC_WRITE: a region without REMOTE_WRITE': {
    works: [{ ...atomicWrite, rkey: READ_ONLY }, write],
    ...denied,
  },
  'READ: a region without REMOTE_READ': {
    works: [{ ...read, rkey: WRITE_ONLY }, write],
    ...denied,
  },
  'FETCH_ADD: a region without REMOTE_ATOMIC': {
    works: [{ ...add, rkey: WRITE_ONLY }, write],
    ...denied,
  },
  'FLUSH: a region without FLUSH_GLOBAL': {
    works: [{ ...flush, rkey: WRITE_ONLY }, write],
    ...denied,
  },
  'WRITE: a queue pair that allows none': {
    works: [write, write],
    ...invalid,
    ...onB({ qpAccess: ACCESS_REMOTE_READ }),
  },
  'READ: a queue pair that allows none': {
    works: [read, write],
    ...invalid,
    ...onB({ qpAccess: ACCESS_REMOTE_WRITE }),
  },
  'FETCH_ADD: a queue pair that allows none': {
    works: [add, write],
    ...invalid,
    ...onB({ qpAccess: ACCESS_REMOTE_WRITE }),
  },
  'WRITE: a window that is not bound': {
    works: [{ ...write, rkey: (7 << 8) | 0 }, write],
    ...denied,
    prepareB: (host) => host.command(CMD_ALLOC_MW, [1]),
  },
  'nothing at all may have any key': {
    works: [
      { ...write, length: 0, rkey: 0x6307 },
      { ...read, length: 0, rkey: 0x6307 },
    ],
    a: [WC_SUCCESS, WC_SUCCESS],
  },

  'FETCH_ADD: an address that is no multiple of eight': {
    works: [{ ...add, remote: BASE + 8196 }, write],
    ...invalid,
  },
  'CMP_SWAP: an address that is no multiple of eight': {
    works: [{ ...swap, remote: BASE + 8193 }, write],
    ...invalid,
  },
  'ATOMIC_WRITE: an address that is no multiple of eight': {
    works: [{ ...atomicWrite, remote: BASE + 8194 }, write],
    ...invalid,
  },
  'FLUSH: no placement type': { works: [{ ...flush, immediate: 0 }, write], ...invalid },
  'more READs at a time than b has room for': {
    works: [
      { ...read, length: 8192 },
      { ...read, length: 8192 },
    ],
    a: [WC_SUCCESS, WC_REM_INV_REQ_ERR],
    nak: INVALID,
    eventsB: [EVENT_QP_REQ_ERR],
    options: { setUpA: { maxRdAtomic: 2 }, setUpB: { maxDestRdAtomic: 1 } },
  },
  'packets above the path MTU of b': {
    works: [{ ...write, length: 4096 }, write],
    ...invalid,
    options: { setUpA: { mtu: 4096 } },
  },

  'a receive that is too small': {
    works: [{ ...send, length: 100 }, write],
    ...invalid,
    posted: [small, room],
    b: [WC_LOC_LEN_ERR, FLUSHED],
    eventsB: [],
  },
  'a receive of a shared queue that is too small': {
    works: [{ ...send, length: 100 }, write],
    ...invalid,
    posted: [small, room],
    b: [WC_LOC_LEN_ERR],
    eventsB: [EVENT_QP_LAST_WQE_REACHED],
    ...onB({ srqEntries: 4 }),
  },
  'a receive with a key that was never given': {
    works: [send, write],
    a: [WC_REM_OP_ERR, FLUSHED],
    nak: OPERATION,
    posted: [[{ address: BASE, length: 100, lkey: 0x6307 }], room],
    b: [WC_LOC_PROT_ERR, FLUSHED],
  },
  'a receive of another protection domain': {
    works: [send, write],
    a: [WC_REM_OP_ERR, FLUSHED],
    nak: OPERATION,
    posted: [[{ address: BASE, length: 100, lkey: FOREIGN }]],
    b: [WC_LOC_PROT_ERR],
  },
  'no receive, and no patience': {
    works: [send, write],
    a: [WC_RNR_RETRY_EXC_ERR, FLUSHED],
    options: { setUpA: { rnrRetry: 2 } },
    counter: 'out_of_buffer',
  },
  'an immediate without a receive, and no patience': {
    works: [{ ...write, opcode: WR_RDMA_WRITE_WITH_IMM, length: 0 }, write],
    a: [WC_RNR_RETRY_EXC_ERR, FLUSHED],
    options: { setUpA: { rnrRetry: 0 } },
    counter: 'out_of_buffer',
  },
  'an invalidation of what is not there': {
    works: [{ ...send, opcode: WR_SEND_WITH_INV, immediate: 0x6307, length: 0 }],
    a: [WC_SUCCESS],
    posted: [room, room],
    b: [WC_REM_INV_REQ_ERR, FLUSHED],
  },
  'an invalidation of a region': {
    works: [{ ...send, opcode: WR_SEND_WITH_INV, immediate: REGION_KEY, length: 0 }],
    a: [WC_SUCCESS],
    posted: [room],
    b: [WC_REM_INV_REQ_ERR],
  },

  'a queue pair of b that is in INIT': {
    works: [write, write],
    ...gaveUp,
    ...onB({ states: [QPS_INIT] }),
    counter: 'state_drops',
  },
  'a queue pair of b that is in RESET': {
    works: [write, write],
    ...gaveUp,
    ...onB({ states: [] }),
    counter: 'state_drops',
  },
  'a queue pair of b that is in ERR': {
    works: [write, write],
    ...gaveUp,
    ...onB({ states: [QPS_INIT, QPS_RTR, QPS_ERR] }),
    counter: 'state_drops',
  },
  'a queue pair of b that is not there': {
    works: [write, write],
    ...gaveUp,
    ...onB({ queuePairs: 0 }),
    counter: 'state_drops',
  },
  'a queue pair of b of another service': {
    works: [write, write],
    ...gaveUp,
    ...onB({ type: QPT_UC }),
    counter: 'header_drops',
  },
  'another partition': {
    works: [write, write],
    ...gaveUp,
    options: { pkeys: [PKEY_DEFAULT, 0x8001], setUpB: { pkeyIndex: 1 } },
    counter: 'bad_pkey_cntr',
  },
  'two limited members of a partition': {
    works: [write, write],
    ...gaveUp,
    options: { pkeys: [0x7fff] },
    counter: 'bad_pkey_cntr',
  },

  // What never leaves a.
  'a local key that was never given': {
    works: [{ ...write, lkey: 0x6307 }, write],
    a: [WC_LOC_PROT_ERR, FLUSHED],
  },
  'a local key of another protection domain': {
    works: [{ ...write, lkey: FOREIGN }, write],
    a: [WC_LOC_PROT_ERR, FLUSHED],
  },
  'a local range that ends behind the region': {
    works: [{ ...write, address: BASE + SIZE - 63 }, write],
    a: [WC_LOC_PROT_ERR, FLUSHED],
  },
  'one of several local entries is bad': {
    works: [
      {
        ...write,
        sges: [
          { address: BASE, length: 8, lkey: REGION_KEY },
          { address: BASE, length: 8, lkey: 0x6307 },
        ],
      },
      write,
    ],
    a: [WC_LOC_PROT_ERR, FLUSHED],
  },
  'a READ into a region that may not be written': {
    works: [{ ...read, lkey: READ_ONLY }, fenced],
    a: [WC_LOC_PROT_ERR, FLUSHED],
  },
  // It fails when its result comes; that this one finds nothing to swap leaves b as it was.
  'a CMP_SWAP into a region that may not be written': {
    works: [{ ...swap, lkey: READ_ONLY }, fenced],
    a: [WC_LOC_PROT_ERR, FLUSHED],
  },
  'a message above 2^30 bytes': {
    works: [{ ...write, length: 2 ** 30 + 1 }, write],
    a: [WC_LOC_LEN_ERR, FLUSHED],
  },
  'a FETCH_ADD of other than eight bytes': {
    works: [{ ...add, length: 4 }, write],
    a: [WC_LOC_LEN_ERR, FLUSHED],
  },
  'an ATOMIC_WRITE of other than eight bytes': {
    works: [{ ...atomicWrite, length: 16 }, write],
    a: [WC_LOC_LEN_ERR, FLUSHED],
  },
  'an operation that there is not': {
    works: [{ ...write, opcode: 13 }, write],
    a: [WC_LOC_QP_OP_ERR, FLUSHED],
  },
  'a READ with inline data': {
    works: [{ ...read, flags: SEND_SIGNALED | SEND_INLINE }, write],
    a: [WC_LOC_QP_OP_ERR, FLUSHED],
  },
  'READs of a queue pair that may have none out': {
    works: [read, write],
    a: [WC_LOC_QP_OP_ERR, FLUSHED],
    options: maxRdAtomic: 0 ,
  },
  'a bind to a region that does not allow it': {
    works: [{ opcode: WR_BIND_MW, ...local, rkey: (7 << 8) | 1, immediate: 6 }, write],
    a: [WC_MW_BIND_ERR, FLUSHED],
  },
  'an invalidation of a region of one’s own': {
    works: [{ opcode: WR_LOCAL_INV, rkey: REGION_KEY }, write],
    a: [WC_MW_BIND_ERR, FLUSHED],
  },
};

/** Unreliable services: a learns nothing; the next message arrives. */
const unreliable: Record<string, Case> = Object.fromEntries(
  (
    [
      ['a key that was never given', { rkey: 0x6307 }],
      ['a key of another protection domain', { rkey: FOREIGN }],
      ['a region without the right', { rkey: READ_ONLY }],
      ['a range that ends behind the region', { remote: BASE + SIZE - 60 }],
    ] as const
  ).map(([name, change]): [string, Case] => [
    `UC WRITE: ${name}`,
    {
      works: [{ ...write, ...change }, send],
      a: [WC_SUCCESS, WC_SUCCESS],
      posted: [room],
      b: [WC_SUCCESS],
      changes: [16_384, 16_448],
      options: { setUpA: { type: QPT_UC }, setUpB: { type: QPT_UC } },
      counter: 'resp_remote_access_errors',
    },
  ]),
);
const uc: PairOptions = { setUpA: { type: QPT_UC }, setUpB: { type: QPT_UC } };
const ud: PairOptions = { setUpA: { type: QPT_UD }, setUpB: { type: QPT_UD } };
const header = 40;
Object.assign(unreliable, {
  'UC SEND: a receive that is too small, which the next message gets': {
    works: [
      { ...send, length: 100 },
      { ...send, length: 8 },
    ],
    a: [WC_SUCCESS, WC_SUCCESS],
    posted: [small],
    b: [WC_SUCCESS],
    changes: [16_384, 16_392],
    options: uc,
    counter: 'resp_local_length_error',
  },
  'UC SEND: no receive': {
    works: [send],
    a: [WC_SUCCESS],
    options: uc,
    counter: 'out_of_buffer',
  },
  'UC READ: not a thing of this service': {
    works: [read, send],
    a: [WC_LOC_QP_OP_ERR, FLUSHED],
    options: uc,
  },
  'UC FETCH_ADD: not a thing of this service': {
    works: [add, send],
    a: [WC_LOC_QP_OP_ERR, FLUSHED],
    options: uc,
  },
  'UD SEND: another Q_Key': {
    works: [{ ...datagram, ud: { qpn: QPN, qkey: QKEY + 1, dlid: 2 } }, datagram],
    a: [WC_SUCCESS, WC_SUCCESS],
    posted: [room],
    b: [WC_SUCCESS],
    changes: [16_384 + header, 16_448 + header],
    options: ud,
    counter: 'qkey_viol_cntr',
  },
  'UD SEND: a queue pair that is not there': {
    works: [{ ...datagram, ud: { qpn: 0x99, qkey: QKEY, dlid: 2 } }, datagram],
    a: [WC_SUCCESS, WC_SUCCESS],
    posted: [room],
    b: [WC_SUCCESS],
    changes: [16_384 + header, 16_448 + header],
    options: ud,
    counter: 'state_drops',
  },
  'UD SEND: no receive': {
    works: [datagram],
    a: [WC_SUCCESS],
    options: ud,
    counter: 'out_of_buffer',
  },
  'UD SEND: another partition': {
    works: [datagram],
    a: [WC_SUCCESS],
    posted: [room],
    options: {
      ...ud,
      pkeys: [PKEY_DEFAULT, 0x8001],
      setUpB: { type: QPT_UD, pkeyIndex: 1 },
    },
    counter: 'bad_pkey_cntr',
  },
  'UD SEND: a receive without room for the header': {
    works: [datagram, { ...datagram, length: 0 }],
    a: [WC_SUCCESS, WC_SUCCESS],
    posted: [small],
    options: ud,
    counter: 'resp_local_length_error',
  },
  'UD SEND: more than the path MTU': {
    works: [{ ...datagram, length: 4097 }, datagram],
    a: [WC_LOC_LEN_ERR, FLUSHED],
    posted: [room],
    options: ud,
  },
  'UD WRITE: not a thing of this service': {
    works: [{ ...write, ud: { qpn: QPN, qkey: QKEY, dlid: 2 } }, datagram],
    a: [WC_LOC_QP_OP_ERR, FLUSHED],
    posted: [room],
    options: ud,
  },
  'UD SEND with invalidate: not a thing of this service': {
    works: [
      { ...datagram, opcode: WR_SEND_WITH_INV },
      { ...datagram, opcode: WR_SEND_WITH_IMM },
    ],
    a: [WC_LOC_QP_OP_ERR, FLUSHED],
    posted: [room],
    options: ud,
  },
} satisfies Record<string, Case>);

const COMMON = { mtu: MTU, length: SIZE, access: EVERYTHING, qpAccess: EVERYTHING };

/** Both hosts, all of their memory filled, with the keys of this file. */
function stage(options: PairOptions = {}): { pair: Pair; log: LoggedRecord[] } {
  const pair = new Pair({
    bytes: SIZE,
    profile: { ackTimeoutMinExponent: 0, ackTimeoutFactor: 1 },
    ...options,
    setUpA: { ...COMMON, timeout: 8, retryCnt: 2, ...options.setUpA },
    setUpB: { ...COMMON, timeout: 8, retryCnt: 2, ...options.setUpB },
  });
  const log: LoggedRecord[] = [];
  pair.hcaA.node.digest.attach(log);
  for (const host of [pair.a, pair.b]) {
    for (let page = 0; page < host.blocks.length; page++) {
      const fill = new Uint8Array(4096).fill(host === pair.a ? 0x5a : 0xb5);
      const burst = pair.pool.burstFromBytes(fill, 0, 4096);
      host.land(burst, 0, 4096, page, 0);
      pair.pool.releaseBurst(burst);
    }
    host.at(READY_PS / 2, () => {
      host.command(CMD_ALLOC_PD);
      host.command(CMD_CREATE_MKEY, [2, EVERYTHING, 7], [BASE, SIZE]);
      host.command(CMD_CREATE_MKEY, [1, ACCESS_REMOTE_READ, 7], [BASE, SIZE]);
      host.command(CMD_CREATE_MKEY, [1, ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE, 7], [BASE, SIZE]);
      host.command(CMD_CREATE_MKEY, [1, EVERYTHING, 7], [BASE, SIZE]);
      host.command(CMD_CREATE_MKEY, [1, ACCESS_LOCAL_WRITE | ACCESS_MW_BIND, 7], [BASE, SIZE]);
      const entry = (i: number): number => ((BASE / 4096 + i) << 2) | ACCESS_WRITE | ACCESS_READ;
      for (const key of [FOREIGN, READ_ONLY, WRITE_ONLY, GONE, BINDABLE]) {
        host.table(key, 0, SIZE / 4096, entry);
      }
      host.command(CMD_DESTROY_MKEY, [GONE]);
    });
  }
  return { pair, log };
}

/** Answers that a has received, by syndrome, without ACKs and RNR NAKs. */
function naksOf(log: readonly LoggedRecord[]): number[] {
  const packets = log.filter(({ kind, fields }) => kind === 'frame received' && fields[0] === 1);
  return packets
    .map(({ fields }) => fields.slice(1))
    .filter((words) => ((opFlags[words[W_OPCODE] as number] as number) & OP_RESPONSE) !== 0)
    .map((words) => (words[W_AETH] as number) >>> 24)
    .filter((syndrome) => syndrome >= 0x60);
}

/** The host's memory but for the bytes from BASE + `from` to BASE + `to` is as it was. */
function expectUntouched(host: BareHost, value: number, from = 0, to = 0): void {
  const bytes = host.read(0, host.blocks.length * 4096);
  bytes.fill(value, BASE + from, BASE + to);
  const wrong = bytes.findIndex((byte) => byte !== value);
  if (wrong >= 0) throw new Error(`byte ${wrong} of ${host.node.name} has changed`);
}

function expectNothingLeft({ pool, a, b, hcaA, hcaB }: Pair): void {
  expect(pool.framesInUse).toBe(0);
  expect(pool.burstsInUse).toBe(0);
  hcaA.checkLeaks();
  hcaB.checkLeaks();
  expect(pool.blocks.blocksInUse).toBe(new Set([...a.blocks, ...b.blocks]).size);
}

const statusesOf = (host: BareHost, isReceive: boolean): number[] =>
  host.completions
    .filter(({ flags }) => ((flags & CQE_RECEIVE) !== 0) === isReceive)
    .map(({ status }) => status);

describe.each([
  ['a reliable connection', reliable],
  ['an unreliable service', unreliable],
])('%s', (_, cases) => {
  it.each(Object.entries(cases))('%s', (_name, test) => {
    const { pair, log } = stage(test.options);
    const { a, b } = pair;
    const isShared = test.options?.setUpB?.srqEntries !== undefined;
    b.at(READY_PS / 2 + 1, () => {
      test.prepareB?.(b);
      test.posted?.forEach((sges, i) => {
        if (isShared) b.postBuffer(BUS_SRQ_DOORBELL, 1, i, sges);
        else b.postBuffer(BUS_RECV_DOORBELL, QPN, i, sges);
      });
    });
    a.at(READY_PS, () => {
      test.works.forEach((work, wrId) => {
        a.postSend(QPN, { ...work, wrId });
      });
    });
    pair.drive();

    expect(statusesOf(a, false)).toEqual(test.a);
    expect(a.completions.map(({ wrId }) => wrId)).toEqual(test.works.map((_work, i) => i));
    expect(statusesOf(b, true)).toEqual(test.b ?? []);
    expect(statusesOf(b, false)).toEqual([]);
    expect(naksOf(log)).toEqual(test.nak === undefined ? [] : [test.nak]);
    expect(a.asyncEvents).toEqual(test.eventsA ?? []);
    expect(b.asyncEvents).toEqual(test.eventsB ?? []);
    if (test.counter) expect(pair.hcaB.report().counters[test.counter]).toBeGreaterThan(0);
    const [from, to] = test.changes ?? [0, 0];
    expectUntouched(b, 0xb5, from, to);
    if (test.changes)
      expect(b.read(BASE + from, to - from).every((byte) => byte === 0x5a)).toBe(true);
    // A READ that went well brings what b has.
    const isRead = test.works.some(({ opcode, length }, i) => {
      return opcode === WR_RDMA_READ && length !== 0 && test.a[i] === WC_SUCCESS;
    });
    expectUntouched(a, 0x5a, 0, isRead ? 8192 : 0);
    expectNothingLeft(pair);
  });
});

/** What no adapter sends: packets that a third party puts on the wire with a's address. */
interface Stray {
  readonly opcode: number;
  readonly bytes?: number;
  readonly dmaBytes?: number;
  readonly psn?: number;
}

function strayFrame(pool: FramePool, psn: number, stray: Stray): number {
  const frame = pool.allocate();
  const { words, doubles } = pool;
  const base = frame * FRAME_WORDS;
  words[base + W_OPCODE] = stray.opcode;
  words[base + W_DEST_QPN] = QPN;
  words[base + W_PSN] = psn & 0xffffff;
  words[base + W_BTH_FLAGS] = 2;
  words[base + W_LIDS] = (1 << 16) | 2;
  words[base + W_PKEY] = PKEY_DEFAULT;
  words[base + W_RKEY] = REGION_KEY;
  words[base + W_DMA_BYTES] = stray.dmaBytes ?? stray.bytes ?? 0;
  doubles[frame * 2] = BASE;
  const bytes = stray.bytes ?? 0;
  words[base + PAYLOAD_BYTES] = bytes;
  if (bytes > 0) words[base + BURST] = pool.burstFromBytes(new Uint8Array(bytes), 0, bytes);
  return frame;
}

describe('packets in a’s name that a did not send', () => {
  const refused: Record<string, Stray> = {
    'a MIDDLE packet of no message': { opcode: RC_WRITE_MIDDLE, bytes: MTU },
    'a LAST packet of no message': { opcode: RC_SEND_LAST, bytes: 8 },
    'a SEND that goes on before it began': { opcode: RC_SEND_MIDDLE, bytes: MTU },
    'a reserved opcode': { opcode: 0x1f, bytes: 8 },
    'the opcode that RESYNC was': { opcode: 0x15 },
    'a FIRST packet that is short': { opcode: RC_WRITE_FIRST, bytes: 8, dmaBytes: 4096 },
    'an ONLY packet whose length is another': { opcode: RC_WRITE_ONLY, bytes: 8, dmaBytes: 16 },
    'an ONLY packet above the path MTU': { opcode: RC_WRITE_ONLY, bytes: MTU + 4 },
  };
  it.each(Object.entries(refused))('%s ends the connection', (_, stray) => {
    const { pair, log } = stage();
    const { a, b } = pair;
    b.at(READY_PS / 2 + 1, () => b.postBuffer(BUS_RECV_DOORBELL, QPN, 1, room));
    pair.drive();
    const out = pair.hcaA.node.ports[1];
    out?.send(READY_PS + 10 * US, strayFrame(pair.pool, 100, stray));
    a.at(READY_PS + 100 * US, () => a.postSend(QPN, { ...write, wrId: 7 }));
    pair.drive();
    expect(naksOf(log)).toEqual([INVALID]);
    expect(b.asyncEvents).toEqual([EVENT_QP_REQ_ERR]);
    expect(statusesOf(b, true)).toEqual([FLUSHED]);
    // a had nothing out that the NAK could have meant; b does not answer any more.
    expect(a.asyncEvents).toEqual([]);
    expect(statusesOf(a, false)).toEqual([WC_RETRY_EXC_ERR]);
    expectUntouched(a, 0x5a);
    expectUntouched(b, 0xb5);
    expectNothingLeft(pair);
  });

  const ignored: Record<string, Stray> = {
    'an opcode of another service': { opcode: UC_SEND_ONLY, bytes: 8 },
    'a request that b has had': { opcode: RC_WRITE_ONLY, bytes: 8, psn: 99 },
    'an answer that nobody asked for': { opcode: 0x10, bytes: 8 },
  };
  it.each(Object.entries(ignored))('%s changes nothing', (_, stray) => {
    const { pair } = stage();
    const { a, b } = pair;
    pair.drive();
    const out = pair.hcaA.node.ports[1];
    out?.send(READY_PS + 10 * US, strayFrame(pair.pool, stray.psn ?? 100, stray));
    a.at(READY_PS + 100 * US, () => a.postSend(QPN, { ...write, wrId: 7 }));
    pair.drive();
    expect(statusesOf(a, false)).toEqual([WC_SUCCESS]);
    expect([...a.asyncEvents, ...b.asyncEvents]).toEqual([]);
    expectUntouched(a, 0x5a);
    expectUntouched(b, 0xb5, 8192, 8256);
    expectNothingLeft(pair);
  });

  it('a SEND out of sequence is asked for again, and nothing is lost', () => {
    const { pair, log } = stage();
    const { a, b } = pair;
    b.at(READY_PS / 2 + 1, () => b.postBuffer(BUS_RECV_DOORBELL, QPN, 1, room));
    pair.drive();
    const out = pair.hcaA.node.ports[1];
    out?.send(
      READY_PS + 10 * US,
      strayFrame(pair.pool, 105, { opcode: RC_SEND_FIRST, bytes: MTU }),
    );
    a.at(READY_PS + 100 * US, () => a.postSend(QPN, { ...send, wrId: 7 }));
    pair.drive();
    expect(naksOf(log)).toEqual([0x60]);
    expect(statusesOf(a, false)).toEqual([WC_SUCCESS]);
    expect(statusesOf(b, true)).toEqual([WC_SUCCESS]);
    expectUntouched(b, 0xb5, 16_384, 16_448);
    expectNothingLeft(pair);
  });
});
