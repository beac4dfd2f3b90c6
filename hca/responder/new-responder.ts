/** The responder that a queue pair needs for its service. */
import { QPT_RC, QPT_UC } from '../../transport/index.ts';
import type { Parts } from '../qp/parts.ts';
import type { QueuePair } from '../qp/queue-pair.ts';
import { RcResponder } from './rc-responder.ts';
import type { Responder } from './responder.ts';
import { UcResponder } from './uc-responder.ts';
import { UdResponder } from './ud-responder.ts';

export function newResponder(qp: QueuePair, parts: Parts): Responder {
  if (qp.type === QPT_RC) return new RcResponder(qp, parts);
  return qp.type === QPT_UC ? new UcResponder(qp, parts) : new UdResponder(qp, parts);
}
