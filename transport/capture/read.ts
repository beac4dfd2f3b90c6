/** The frames of a capture file, whichever of the known formats it has. */
import { Failure } from '../sim/failure.ts';
import { type CapturedFrame, placeOf } from './capture.ts';
import { isPcap, readPcap } from './pcap.ts';
import { isPcapng, readPcapng } from './pcapng.ts';

/**
 * Reads the capture in `bytes`; `file` names it in messages. Throws Failure E_CAPTURE_INVALID, with
 * the byte, at what is wrong with it.
 */
export function readCapture(bytes: Uint8Array, file: string): Generator<CapturedFrame> {
  if (isPcapng(bytes)) return readPcapng(bytes, file);
  if (isPcap(bytes)) return readPcap(bytes, file);
  const what = bytes.length === 0 ? 'the file is empty' : `it starts with ${start(bytes)}`;
  throw new Failure('E_CAPTURE_INVALID', what, placeOf(file, 0), 'a pcap or a pcapng');
}

function start(bytes: Uint8Array): string {
  const hex = Array.from(bytes.subarray(0, 4), (byte) => byte.toString(16).padStart(2, '0'));
  return hex.join(' ');
}
