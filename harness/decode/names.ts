/**
 * What the numbers of packets are called: opcodes as Wireshark spells them, and syndromes.
 */
import {
  AETH_ACK,
  AETH_ACK_NO_CREDITS,
  AETH_KIND,
  AETH_NAK,
  AETH_RNR_NAK,
  creditCounts,
  rnrTimerPs,
} from '../../hca/index.ts';
import { MS, opName } from '../../transport/index.ts';

const spelling: Readonly<Record<string, string>> = {
  RC: 'RC',
  UC: 'UC',
  UD: 'UD',
  RDMA: 'RDMA',
  CNP: 'CNP',
  PD: 'PD',
  IMM: 'Immediate',
  INV: 'Invalidate',
};

/** `RC RDMA Write First`, as in Wireshark's list of packets. */
export function opTitle(opcode: number): string {
  const name = opName[opcode];
  if (name.startsWith('UNKNOWN')) return `Unknown opcode 0x${opcode.toString(16).padStart(2, '0')}`;
  const words = name.split('_');
  return words.map((word) => spelling[word] ?? word[0] + word.slice(1).toLowerCase()).join(' ');
}

/** Codes of a NAK, and what the requester's work completes with; after the first it is sent again. */
const naks: readonly (readonly [name: string, status: string])[] = [
  ['PSN sequence error', ''],
  ['invalid request', 'IBV_WC_REM_INV_REQ_ERR'],
  ['remote access error', 'IBV_WC_REM_ACCESS_ERR'],
  ['remote operational error', 'IBV_WC_REM_OP_ERR'],
  ['invalid RD request', 'IBV_WC_REM_INV_RD_REQ_ERR'],
];

export function nakName(syndrome: number): string {
  return naks[syndrome & 31]?.[0] ?? `reserved ${syndrome & 31}`;
}

/** The completion status after a NAK; '' where it has none. */
export function nakStatus(syndrome: number): string {
  return naks[syndrome & 31]?.[1] ?? '';
}

/** How long a RNR NAK asks to wait. */
export function rnrText(syndrome: number): string {
  return `${rnrTimerPs[syndrome & 31] / MS} ms`;
}

/** `ACK`, `RNR NAK 2.56 ms`, `NAK PSN sequence error`. */
export function syndromeText(syndrome: number): string {
  switch (syndrome & AETH_KIND) {
    case AETH_ACK:
      if (syndrome === AETH_ACK_NO_CREDITS) return 'ACK';
      return `ACK, ${creditCounts[syndrome]} credits`;
    case AETH_RNR_NAK:
      return `RNR NAK ${rnrText(syndrome)}`;
    case AETH_NAK:
      return `NAK ${nakName(syndrome)}`;
    default:
      return `reserved syndrome 0x${syndrome.toString(16)}`;
  }
}
