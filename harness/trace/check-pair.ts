/**
 * Whether two ranks of a recording agree about the messages between them.
 */
import { Failure } from '../../transport/index.ts';
import { isReceive, isSend, type Trace } from './format.ts';

/**
 * Checks that the messages between two ranks agree: every receive from the other names a send of
 * the other to it, of no more bytes than the receive holds. Throws E_TRACE_INVALID.
 */
export function checkPair(receiver: Trace, sender: Trace): void {
  const sends = new Map<number, number>();
  for (const event of sender.events) {
    if (isSend(event) && event.peer === receiver.rank) sends.set(event.message, event.bytes);
  }
  for (const event of receiver.events) {
    if (!isReceive(event) || event.peer !== sender.rank || event.message === 0) continue;
    const { message, line } = event;
    const bytes = sends.get(message);
    if (bytes === undefined) {
      const problem = `message ${message} of rank ${sender.rank} is not a send to rank ${receiver.rank}`;
      throw bad(receiver, line, problem, `a match in ${sender.file}`);
    }
    if (bytes > event.bytes) {
      throw bad(receiver, line, `${bytes} bytes are received`, `at most ${event.bytes}`);
    }
    sends.delete(message);
  }
  for (const [message] of sends) {
    throw bad(sender, 0, `message ${message} is never received`, `a match in ${receiver.file}`);
  }
}

function bad({ file }: Trace, line: number, message: string, expected: string): Failure {
  return new Failure('E_TRACE_INVALID', message, line > 0 ? `${file}:${line}` : file, expected);
}
