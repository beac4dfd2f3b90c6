/** Management datagrams in a few words: what the communication manager says (IBTA chapter 12). */
import { get16 } from '../../transport/index.ts';

const CLASS_COMMUNICATION = 7;
const MAD_HEADER_BYTES = 24;

const communicationMessages: Readonly<Record<number, string>> = {
  16: 'ConnectRequest',
  17: 'MsgRcptAck',
  18: 'ConnectReject',
  19: 'ConnectReply',
  20: 'ReadyToUse',
  21: 'DisconnectRequest',
  22: 'DisconnectReply',
};

/** The datagram in `mad`. */
export function describeMad(mad: Uint8Array): string {
  if (mad.length < MAD_HEADER_BYTES) return 'management datagram, cut off';
  const attribute = get16(mad, 16);
  const name = mad[1] === CLASS_COMMUNICATION ? communicationMessages[attribute] : undefined;
  if (name !== undefined) return `connection manager: ${name}`;
  return `management datagram: class 0x${mad[1].toString(16)}, attribute 0x${attribute.toString(16)}`;
}
