/**
 * Errors of verbs and of the mechanisms below them, by their errno names.
 *
 * A VerbsError is what a verb throws where libibverbs returns an errno: the program may catch it and
 * go on. It is not a bug of the model and not, by itself, the end of a run.
 */

export type Errno = 'EAGAIN' | 'EBUSY' | 'EFAULT' | 'EINVAL' | 'ENOMEM' | 'EOPNOTSUPP' | 'EPERM';

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
