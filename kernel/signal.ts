/**
 * A signal that ends the simulated program where it stands: an access that its memory does not allow.
 *
 * Not a system call's error (`SystemCallError`), which the program asked for and may handle, and no bug
 * of the model. Nobody installs handlers here, so a signal that nobody catches ends the run with
 * E_OPERATION, as it would end the program.
 */
import { Failure } from '../transport/index.ts';

/** SIGSEGV: not mapped, or not with that right. SIGBUS: mapped, but there is no page to be had. */
export type SignalName = 'SIGSEGV' | 'SIGBUS';

export class SignalError extends Failure {
  /** `address` is what was accessed (si_addr), for writing if `write`; `detail` says what stands there. */
  constructor(
    readonly signal: SignalName,
    readonly address: number,
    readonly write: boolean,
    detail: string,
    process: string,
  ) {
    const name = signal === 'SIGSEGV' ? 'segmentation fault' : 'bus error';
    const access = `${write ? 'write to' : 'read of'} 0x${address.toString(16)}`;
    super(
      'E_OPERATION',
      `${name}: ${access}, which is ${detail} (${signal})`,
      process,
      'an address that the process has mapped',
    );
    this.name = 'SignalError';
  }
}
