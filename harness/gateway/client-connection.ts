/** Takes a client's queue pair through its states, as `rcpeer` does. */
import type { Host, QueuePairAttributes, Sim } from '../../kernel/index.ts';
import { QPS_INIT, QPS_RTR, QPS_RTS, QPT_RC, QPT_UD } from '../../transport/index.ts';
import type { ClientPair } from './client-resources.ts';
import { ControlError } from './control-error.ts';
import type { CommandOf } from './control-protocol.ts';

/** RESET to INIT. */
export function* toInit(
  host: Host,
  pair: ClientPair,
  { dacc, qkey }: { dacc: number; qkey: number },
): Sim<void> {
  const common = { state: QPS_INIT, pkeyIndex: 0, port: 1 };
  pair.qkey = qkey;
  const own = pair.qp.type === QPT_UD ? { qkey } : { access: dacc };
  yield* host.verbs.modifyQp(pair.qp, { ...common, ...own });
}

/** INIT to RTR; `lid` stands for the peer's address. */
export function* toRtr(
  host: Host,
  pair: ClientPair,
  command: CommandOf<'rtr'> | CommandOf<'connect'>,
  lid: number,
  activeMtu: number,
): Sim<void> {
  const { qpn, psn, mtu, drd, minrnr } = command;
  if (lid === 0) throw new ControlError('EHOSTUNREACH', `${command.gid} is not on this link`);
  pair.lid = lid;
  pair.remoteQpn = qpn;
  let changes: Partial<QueuePairAttributes> = { state: QPS_RTR };
  if (pair.qp.type !== QPT_UD) {
    if (mtu > activeMtu) {
      throw new ControlError('EINVAL', `path MTU ${mtu}, of at most ${activeMtu} on this port`);
    }
    changes = { ...changes, destLid: lid, mtuBytes: mtu, destQpn: qpn, receivePsn: psn };
  }
  if (pair.qp.type === QPT_RC) {
    changes = { ...changes, maxDestRdAtomic: drd, minRnrTimer: minrnr };
  }
  yield* host.verbs.modifyQp(pair.qp, changes);
}

/** RTR to RTS. */
export function* toRts(
  host: Host,
  pair: ClientPair,
  { timeout, retry, rnr, rd }: { timeout: number; retry: number; rnr: number; rd: number },
): Sim<void> {
  const common = { state: QPS_RTS, sendPsn: pair.psn };
  const reliable = { timeout, retryCnt: retry, rnrRetry: rnr, maxRdAtomic: rd };
  const own = pair.qp.type === QPT_RC ? reliable : {};
  yield* host.verbs.modifyQp(pair.qp, { ...common, ...own });
}
