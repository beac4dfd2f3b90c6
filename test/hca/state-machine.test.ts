/** MODIFY_QP and QUERY_QP: which transitions there are, and which attributes each needs and takes. */
import { describe, expect, it } from 'vitest';
import {
  ACCESS_REMOTE_READ,
  CMD_BAD_PARAMETER,
  CMD_BAD_RESOURCE,
  CMD_CREATE_QP,
  CMD_OK,
  CMD_QUERY_QP,
  MS,
  mtuBytes,
  QP_ACCESS_FLAGS,
  QP_AV,
  QP_CUR_STATE,
  QP_DEST_QPN,
  QP_EN_SQD_ASYNC_NOTIFY,
  QP_MAX_DEST_RD_ATOMIC,
  QP_MAX_QP_RD_ATOMIC,
  QP_MIN_RNR_TIMER,
  QP_PATH_MTU,
  QP_PKEY_INDEX,
  QP_PORT,
  QP_QKEY,
  QP_RETRY_CNT,
  QP_RNR_RETRY,
  QP_RQ_PSN,
  QP_SQ_PSN,
  QP_STATE,
  QP_TIMEOUT,
  QPA_ACCESS_FLAGS,
  QPA_CUR_STATE,
  QPA_DEST_QPN,
  QPA_DLID,
  QPA_MAX_DEST_RD_ATOMIC,
  QPA_MAX_RD_ATOMIC,
  QPA_MIN_RNR_TIMER,
  QPA_PATH_MTU,
  QPA_PKEY_INDEX,
  QPA_PORT,
  QPA_QKEY,
  QPA_RETRY_CNT,
  QPA_RNR_RETRY,
  QPA_RQ_PSN,
  QPA_SQ_PSN,
  QPA_STATE,
  QPA_TIMEOUT,
  QPS_ERR,
  QPS_INIT,
  QPS_RTR,
  QPS_RTS,
  QPS_SQD,
  QPT_RC,
  QPT_UC,
  QPT_UD,
  WC_LOC_LEN_ERR,
  WC_SUCCESS,
  WR_SEND,
} from '../../transport/index.ts';
import { maskFor, READY_PS } from '../fixtures/bare-host.ts';
import { LoneAdapter } from '../fixtures/wire-peer.ts';
import { local, QPN, UD } from '../fixtures/work.ts';

const bits: Readonly<Record<string, number>> = {
  STATE: QP_STATE,
  CUR_STATE: QP_CUR_STATE,
  EN_SQD_ASYNC_NOTIFY: QP_EN_SQD_ASYNC_NOTIFY,
  ACCESS_FLAGS: QP_ACCESS_FLAGS,
  PKEY_INDEX: QP_PKEY_INDEX,
  PORT: QP_PORT,
  QKEY: QP_QKEY,
  AV: QP_AV,
  PATH_MTU: QP_PATH_MTU,
  TIMEOUT: QP_TIMEOUT,
  RETRY_CNT: QP_RETRY_CNT,
  RNR_RETRY: QP_RNR_RETRY,
  RQ_PSN: QP_RQ_PSN,
  MAX_QP_RD_ATOMIC: QP_MAX_QP_RD_ATOMIC,
  MIN_RNR_TIMER: QP_MIN_RNR_TIMER,
  SQ_PSN: QP_SQ_PSN,
  MAX_DEST_RD_ATOMIC: QP_MAX_DEST_RD_ATOMIC,
  DEST_QPN: QP_DEST_QPN,
  // What our adapters have none of: an alternate path, a rate limit, and bits that nobody has.
  ALT_PATH: 1 << 14,
  PATH_MIG_STATE: 1 << 18,
  CAP: 1 << 19,
  RATE_LIMIT: 1 << 25,
  UNKNOWN: 1 << 30,
};
const states = ['RESET', 'INIT', 'RTR', 'RTS', 'SQD', 'SQE', 'ERR'];
const types: Readonly<Record<string, number>> = { RC: QPT_RC, UC: QPT_UC, UD: QPT_UD };

/** Required / optional attributes: the tables of IBTA 11.2.5.2, as verbs.c of Linux has them. */
const table: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'RESET INIT': {
    RC: 'PKEY_INDEX PORT ACCESS_FLAGS /',
    UC: 'PKEY_INDEX PORT ACCESS_FLAGS /',
    UD: 'PKEY_INDEX PORT QKEY /',
  },
  'INIT INIT': {
    RC: '/ PKEY_INDEX PORT ACCESS_FLAGS',
    UC: '/ PKEY_INDEX PORT ACCESS_FLAGS',
    UD: '/ PKEY_INDEX PORT QKEY',
  },
  'INIT RTR': {
    RC: 'AV PATH_MTU DEST_QPN RQ_PSN MAX_DEST_RD_ATOMIC MIN_RNR_TIMER / ACCESS_FLAGS PKEY_INDEX',
    UC: 'AV PATH_MTU DEST_QPN RQ_PSN / ACCESS_FLAGS PKEY_INDEX',
    UD: '/ PKEY_INDEX QKEY',
  },
  'RTR RTS': {
    RC: 'TIMEOUT RETRY_CNT RNR_RETRY SQ_PSN MAX_QP_RD_ATOMIC / CUR_STATE ACCESS_FLAGS MIN_RNR_TIMER',
    UC: 'SQ_PSN / CUR_STATE ACCESS_FLAGS',
    UD: 'SQ_PSN / CUR_STATE QKEY',
  },
  'RTS RTS': {
    RC: '/ CUR_STATE ACCESS_FLAGS MIN_RNR_TIMER',
    UC: '/ CUR_STATE ACCESS_FLAGS',
    UD: '/ CUR_STATE QKEY',
  },
  'RTS SQD': {
    RC: '/ EN_SQD_ASYNC_NOTIFY',
    UC: '/ EN_SQD_ASYNC_NOTIFY',
    UD: '/ EN_SQD_ASYNC_NOTIFY',
  },
  'SQD RTS': {
    RC: '/ CUR_STATE ACCESS_FLAGS MIN_RNR_TIMER',
    UC: '/ CUR_STATE ACCESS_FLAGS',
    UD: '/ CUR_STATE QKEY',
  },
  'SQD SQD': {
    RC: '/ PORT AV TIMEOUT RETRY_CNT RNR_RETRY MAX_QP_RD_ATOMIC MAX_DEST_RD_ATOMIC ACCESS_FLAGS PKEY_INDEX MIN_RNR_TIMER',
    UC: '/ AV ACCESS_FLAGS PKEY_INDEX',
    UD: '/ PKEY_INDEX QKEY',
  },
  'SQE RTS': { UC: '/ CUR_STATE ACCESS_FLAGS', UD: '/ CUR_STATE QKEY' },
  ...Object.fromEntries(
    states.flatMap((from) => [
      [`${from} RESET`, { RC: '/', UC: '/', UD: '/' }],
      ...(from === 'RESET' ? [] : [[`${from} ERR`, { RC: '/', UC: '/', UD: '/' }]]),
    ]),
  ),
};

/** Values that suit every attribute. */
const good: Readonly<Record<number, number>> = {
  [QPA_PORT]: 1,
  [QPA_PKEY_INDEX]: 0,
  [QPA_QKEY]: 0x1234,
  [QPA_ACCESS_FLAGS]: 15,
  [QPA_DLID]: 2,
  [QPA_PATH_MTU]: 3,
  [QPA_DEST_QPN]: 0x11,
  [QPA_RQ_PSN]: 100,
  [QPA_SQ_PSN]: 100,
  [QPA_MAX_DEST_RD_ATOMIC]: 16,
  [QPA_MAX_RD_ATOMIC]: 16,
  [QPA_MIN_RNR_TIMER]: 12,
  [QPA_TIMEOUT]: 14,
  [QPA_RETRY_CNT]: 7,
  [QPA_RNR_RETRY]: 7,
};

const waysUp: Readonly<Record<string, readonly number[]>> = {
  RESET: [],
  INIT: [QPS_INIT],
  RTR: [QPS_INIT, QPS_RTR],
  RTS: [QPS_INIT, QPS_RTR, QPS_RTS],
  SQD: [QPS_INIT, QPS_RTR, QPS_RTS, QPS_SQD],
  SQE: [QPS_INIT, QPS_RTR, QPS_RTS],
  ERR: [QPS_INIT, QPS_ERR],
};

/** When queue pairs are in their states but for SQE, then those too. */
const SQE_PS = READY_PS + 5 * MS;
const ACT_PS = READY_PS + 10 * MS;

/** Makes queue pairs in one adapter, each in the state that a case starts from. */
class Bench {
  readonly lone = new LoneAdapter({ setUp: { queuePairs: 0 } });
  private nextQpn = 0x11;
  private readonly checks: (() => void)[] = [];

  /** A queue pair of `type` in `state`. */
  queuePair(type: string, state: string): number {
    const { host } = this.lone;
    const qpn = this.nextQpn++;
    host.command(CMD_CREATE_QP, [1, 4, 4, 1, 1, types[type], 0, 0]);
    for (const to of waysUp[state]) {
      const attributes = { ...good, [QPA_STATE]: to };
      host.modifyQp(qpn, QP_STATE | maskFor(to, types[type]), attributes);
    }
    // A doorbell does not wait for the commands before it.
    if (state === 'SQE') host.at(SQE_PS, () => host.postSend(qpn, { opcode: 77, length: 0 }));
    return qpn;
  }

  /** Sends MODIFY_QP; checks its status, and that the state is then `after`. */
  modify(
    qpn: number,
    names: readonly string[],
    to: string,
    status: number,
    after: string,
    changes: Readonly<Record<number, number>> = {},
  ): void {
    const { host } = this.lone;
    const mask = names.reduce((sum, name) => sum | bits[name], 0);
    const attributes = { ...good, [QPA_STATE]: states.indexOf(to), ...changes };
    let tag = 0;
    let query = 0;
    host.at(ACT_PS, () => {
      tag = host.modifyQp(qpn, mask, attributes);
      query = host.command(CMD_QUERY_QP, [qpn]);
    });
    this.checks.push(() => {
      const what = `to ${to} with ${names.join(' ')}`;
      expect(host.results.get(tag)?.status, what).toBe(status);
      expect(states[host.results.get(query)?.mailbox[QPA_STATE] ?? -1], what).toBe(after);
    });
  }

  /** Asks for the attributes of a queue pair, once all else is done. */
  query(qpn: number): () => Int32Array {
    const { host } = this.lone;
    let tag = 0;
    host.at(ACT_PS, () => {
      tag = host.command(CMD_QUERY_QP, [qpn]);
    });
    return () => host.results.get(tag)?.mailbox as Int32Array;
  }

  /** Runs `act` once the adapter is set up, then the checks. */
  run(act: () => void): void {
    this.lone.host.at(READY_PS, act);
    this.lone.drive();
    for (const check of this.checks) check();
  }
}

describe('a transition of a queue pair', () => {
  const cases = Object.keys(types).flatMap((type) =>
    states.flatMap((from) => states.map((to) => ({ type, from, to }))),
  );
  it.each(cases.filter(({ type, from }) => type !== 'RC' || from !== 'SQE'))(
    'of $type from $from to $to takes what verbs say',
    ({ type, from, to }) => {
      const bench = new Bench();
      const rule = table[`${from} ${to}`]?.[type];
      const [required, optional] = (rule ?? '/')
        .split('/')
        .map((names) => names.split(' ').filter((name) => name !== ''));
      const current = { [QPA_CUR_STATE]: states.indexOf(from) };
      bench.run(() => {
        const subject = bench.queuePair(type, from);
        if (rule === undefined) {
          bench.modify(subject, ['STATE'], to, CMD_BAD_PARAMETER, from);
          bench.modify(subject, Object.keys(bits).slice(0, 18), to, CMD_BAD_PARAMETER, from);
          return;
        }
        for (const name of required) {
          const others = required.filter((other) => other !== name);
          bench.modify(subject, ['STATE', ...others], to, CMD_BAD_PARAMETER, from);
        }
        for (const name of Object.keys(bits)) {
          if (name === 'STATE' || required.includes(name)) continue;
          const all = ['STATE', ...required, name];
          if (!optional.includes(name)) {
            bench.modify(subject, all, to, CMD_BAD_PARAMETER, from, current);
            continue;
          }
          const another = bench.queuePair(type, from);
          bench.modify(another, all, to, CMD_OK, to, current);
        }
        bench.modify(subject, ['STATE', ...required], to, CMD_OK, to);
      });
    },
  );

  it.each([QPS_RTR, QPS_SQD, 7, -1])('with cur_qp_state %i is refused in RTS', (current) => {
    const bench = new Bench();
    bench.run(() => {
      const qpn = bench.queuePair('RC', 'RTS');
      const changes = { [QPA_CUR_STATE]: current };
      bench.modify(qpn, ['STATE', 'CUR_STATE'], 'RTS', CMD_BAD_PARAMETER, 'RTS', changes);
    });
  });

  it('without a new state keeps the state and sets attributes', () => {
    const bench = new Bench();
    let query = (): Int32Array => new Int32Array(0);
    bench.run(() => {
      const qpn = bench.queuePair('RC', 'RTS');
      const changes = { [QPA_ACCESS_FLAGS]: ACCESS_REMOTE_READ, [QPA_STATE]: QPS_ERR };
      bench.modify(qpn, ['ACCESS_FLAGS'], 'RTS', CMD_OK, 'RTS', changes);
      query = bench.query(qpn);
    });
    const mailbox = query();
    expect(mailbox[QPA_ACCESS_FLAGS]).toBe(ACCESS_REMOTE_READ);
  });
});

describe('a value that no queue pair can have', () => {
  const cases: [string, string, string, number, number][] = [
    ['INIT', 'port 0', 'PORT', QPA_PORT, 0],
    ['INIT', 'port 2', 'PORT', QPA_PORT, 2],
    ['INIT', 'a P_Key index behind the table', 'PKEY_INDEX', QPA_PKEY_INDEX, 1],
    ['RTR', 'MTU code 0', 'PATH_MTU', QPA_PATH_MTU, 0],
    ['RTR', 'MTU code 6', 'PATH_MTU', QPA_PATH_MTU, 6],
    ['RTR', 'no destination', 'AV', QPA_DLID, 0],
    ['RTR', 'a destination beyond 16 bits', 'AV', QPA_DLID, 0x10000],
    ['RTR', 'a QPN of 25 bits', 'DEST_QPN', QPA_DEST_QPN, 0x1000000],
    ['RTR', 'too many READs to answer', 'MAX_DEST_RD_ATOMIC', QPA_MAX_DEST_RD_ATOMIC, 17],
    ['RTR', 'RNR timer 32', 'MIN_RNR_TIMER', QPA_MIN_RNR_TIMER, 32],
    ['RTS', 'too many READs', 'MAX_QP_RD_ATOMIC', QPA_MAX_RD_ATOMIC, 17],
    ['RTS', 'time-out 32', 'TIMEOUT', QPA_TIMEOUT, 32],
    ['RTS', 'retry_cnt 8', 'RETRY_CNT', QPA_RETRY_CNT, 8],
    ['RTS', 'rnr_retry -1', 'RNR_RETRY', QPA_RNR_RETRY, -1],
  ];
  it.each(cases)(
    'on the way to %s: %s is refused and changes nothing',
    (to, _, __, word, value) => {
      const bench = new Bench();
      const from = states[states.indexOf(to) - 1];
      const [required] = table[`${from} ${to}`].RC.split('/');
      const names = ['STATE', ...required.split(' ').filter((name) => name !== '')];
      bench.run(() => {
        const qpn = bench.queuePair('RC', from);
        bench.modify(qpn, names, to, CMD_BAD_PARAMETER, from, { [word]: value });
        bench.modify(qpn, names, to, CMD_OK, to);
      });
    },
  );

  it('changes no attribute that stood before it in the mailbox', () => {
    const bench = new Bench();
    let query = (): Int32Array => new Int32Array(0);
    bench.run(() => {
      const qpn = bench.queuePair('RC', 'INIT');
      const names = ['STATE', ...table['INIT RTR'].RC.split(' / ')[0].split(' ')];
      const changes = { [QPA_DEST_QPN]: 0x77, [QPA_RQ_PSN]: 0x88, [QPA_MIN_RNR_TIMER]: 99 };
      bench.modify(qpn, names, 'RTR', CMD_BAD_PARAMETER, 'INIT', changes);
      query = bench.query(qpn);
    });
    const mailbox = query();
    expect([mailbox[QPA_DEST_QPN], mailbox[QPA_RQ_PSN]]).toEqual([0, 0]);
  });

  it('first PSNs are masked to 24 bits, as Linux does', () => {
    const bench = new Bench();
    let query = (): Int32Array => new Int32Array(0);
    bench.run(() => {
      const qpn = bench.queuePair('UC', 'INIT');
      const names = ['STATE', 'AV', 'PATH_MTU', 'DEST_QPN', 'RQ_PSN'];
      bench.modify(qpn, names, 'RTR', CMD_OK, 'RTR', { [QPA_RQ_PSN]: 0x7f123456 });
      query = bench.query(qpn);
    });
    expect(query()[QPA_RQ_PSN]).toBe(0x123456);
  });
});

describe('the MTU of the port', () => {
  it('limits path MTUs and datagrams', () => {
    for (const [type, code, isGood] of [
      [QPT_RC, 3, true],
      [QPT_RC, 4, false],
      [QPT_UC, 4, false],
    ] as const) {
      const lone = new LoneAdapter({ portMtu: 1024, setUp: { type, mtu: mtuBytes(code) } });
      lone.drive();
      expect(lone.hca.report().queuePairs[0].state).toBe(isGood ? QPS_RTS : QPS_INIT);
    }
    const lone = new LoneAdapter({ portMtu: 1024, setUp: { type: QPT_UD } });
    lone.host.at(READY_PS, () => {
      lone.host.postSend(QPN, { ...local, opcode: WR_SEND, length: 1024, ud: UD });
      lone.host.postSend(QPN, { ...local, opcode: WR_SEND, length: 1025, ud: UD });
    });
    lone.drive();
    expect(lone.host.completions.map((c) => c.status)).toEqual([WC_SUCCESS, WC_LOC_LEN_ERR]);
  });
});

describe('QUERY_QP', () => {
  it('tells every attribute that was set', () => {
    const bench = new Bench();
    let query = (): Int32Array => new Int32Array(0);
    bench.run(() => {
      const qpn = bench.queuePair('RC', 'RTS');
      query = bench.query(qpn);
    });
    const mailbox = query();
    const set = Object.fromEntries(Object.keys(good).map((word) => [word, mailbox[Number(word)]]));
    // A Q_Key is for datagrams; nothing has set one here.
    expect(set).toEqual({ ...good, [QPA_QKEY]: 0 });
    expect([mailbox[QPA_STATE], mailbox[QPA_CUR_STATE]]).toEqual([QPS_RTS, QPS_RTS]);
  });

  it('of a queue pair that does not exist fails', () => {
    const bench = new Bench();
    const { lone } = bench;
    let tag = 0;
    bench.run(() => {
      tag = lone.host.command(CMD_QUERY_QP, [0x99]);
    });
    expect(lone.host.results.get(tag)?.status).toBe(CMD_BAD_RESOURCE);
  });
});
