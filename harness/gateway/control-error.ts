/** A command that cannot be carried out, with an errno name as its code. */
export class ControlError extends Error {
  constructor(
    readonly code: string,
    message: string,
    /** What is known nevertheless. */
    readonly details: Readonly<Record<string, unknown>> = {},
  ) {
    super(message);
  }
}
