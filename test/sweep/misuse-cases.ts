import {
  ACCESS_FLUSH_GLOBAL,
  ACCESS_LOCAL_WRITE,
  ACCESS_REMOTE_ATOMIC,
  ACCESS_REMOTE_READ,
  ACCESS_REMOTE_WRITE,
  CMD_ALLOC_MW,
  EVENT_QP_ACCESS_ERR,
  EVENT_QP_LAST_WQE_REACHED,
  EVENT_QP_REQ_ERR,
  PKEY_DEFAULT,
  QPS_ERR,
  QPS_INIT,
  QPS_RTR,
  QPT_UC,
  QPT_UD,
  SEND_FENCE,
  SEND_INLINE,
  SEND_SIGNALED,
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
import { REGION_KEY } from '../fixtures/bare-host.ts';
import { BASE, type PairOptions } from '../fixtures/pair.ts';

export const QPN = 0x11;
export const SIZE = 1 << 16;
export const MTU = 1024;
export const QKEY = 0x1234;
/** NAK syndromes. */
export const INVALID = 0x61;
const ACCESS = 0x62;
const OPERATION = 0x63;
export const EVERYTHING =
  ACCESS_LOCAL_WRITE |
  ACCESS_REMOTE_WRITE |
  ACCESS_REMOTE_READ |
  ACCESS_REMOTE_ATOMIC |
  ACCESS_FLUSH_GLOBAL;
/** Keys of both hosts besides REGION_KEY, over the same memory. */
export const FOREIGN = (2 << 8) | 7;
export const READ_ONLY = (3 << 8) | 7;
export const WRITE_ONLY = (4 << 8) | 7;
export const GONE = (5 << 8) | 7;
export const BINDABLE = (6 << 8) | 7;
export const FLUSHED = WC_WR_FLUSH_ERR;

const local = { lkey: REGION_KEY, address: BASE, length: 64 };
const remote = { rkey: REGION_KEY, remote: BASE + 8192 };
export const write: BareWork = { opcode: WR_RDMA_WRITE, ...local, ...remote };
/** Waits for the READs and atomics before it, so that it does not leave where one of them fails. */
const fenced: BareWork = { ...write, flags: SEND_SIGNALED | SEND_FENCE };
const read: BareWork = { opcode: WR_RDMA_READ, ...local, ...remote };
export const send: BareWork = { opcode: WR_SEND, ...local };
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
export const room: readonly BareSge[] = [
  { address: BASE + 16_384, length: 4096, lkey: REGION_KEY },
];
/** Enough behind a datagram's header. */
const small: readonly BareSge[] = [{ address: BASE + 16_384, length: 32, lkey: REGION_KEY }];

export interface Case {
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

export const reliable: Record<string, Case> = {
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
    options: { setUpA: { maxRdAtomic: 0 } },
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
export const unreliable: Record<string, Case> = Object.fromEntries(
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
