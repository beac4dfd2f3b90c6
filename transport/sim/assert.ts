/**
 * The always-on assert. A failed assert is a bug of faultline, never bad input and never a protocol
 * outcome; it ends the run and says where and when in the simulated world it happened.
 */

/** Where an assert failed. `seed` is filled in by whoever runs the world. */
export class SimulationBug extends Error {
  readonly code = 'E_BUG';
  constructor(message: string, where?: { name: string; now: number }) {
    super(where ? `${message} (node ${where.name}, ${where.now} ps)` : message);
    this.name = 'SimulationBug';
  }
}

/**
 * Throws SimulationBug unless `condition` holds. `where` is usually the Node at work. On hot paths the
 * message is a constant: a template would be built every time.
 */
export function assert(
  condition: boolean,
  message: string,
  where?: { name: string; now: number },
): asserts condition {
  if (!condition) throw new SimulationBug(message, where);
}
