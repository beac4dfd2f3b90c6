/**
 * Errors of verbs, of system calls and of the mechanisms below them, by their errno names.
 *
 * A VerbsError is what a verb throws where libibverbs returns an errno, a SystemCallError what a system
 * call throws: the program may catch either and go on. Neither is a bug of the model or, by itself,
 * the end of a run; a SystemCallError that nobody catches ends it with E_OPERATION.
 */
import { Failure } from '../transport/index.ts';

export type Errno =
  | 'EACCES'
  | 'EAGAIN'
  | 'EBADF'
  | 'EBUSY'
  | 'EFAULT'
  | 'EINTR'
  | 'EINVAL'
  | 'EIO'
  | 'EMFILE'
  | 'ENODEV'
  | 'ENOENT'
  | 'ENOMEM'
  | 'EOPNOTSUPP'
  | 'EPERM'
  | 'ESRCH'
  | 'ETIMEDOUT';

export class VerbsError extends Error {
  /** `verb` is the call that failed; `detail` says what was wrong. */
  constructor(
    readonly errno: Errno,
    readonly verb: string,
    detail: string,
  ) {
    super(`${verb}: ${errno}: ${detail}`);
    this.name = 'VerbsError';
  }
}

export class SystemCallError extends Failure {
  /** `call` failed in `process`; `detail` says what was wrong and `expected` what would have been right. */
  constructor(
    readonly errno: Errno,
    readonly call: string,
    detail: string,
    process: string,
    expected = '',
  ) {
    super('E_OPERATION', `${call}: ${detail} (${errno})`, process, expected);
    this.name = 'SystemCallError';
  }
}
