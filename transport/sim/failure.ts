/**
 * Everything that can be wrong with what faultline is given, as opposed to faultline itself: bad
 * input, a peer that is lost or misbehaves, a run that does not finish. Each has a stable code, the
 * place, and what was expected; the code decides the exit status of the command line.
 */

/** Code -> [exit status, what it means]. Exit 1: run failed; 2: bad input; 3: peer lost. */
export const failureCodes = {
  E_USAGE: [2, 'the command line is not understood'],
  E_SCENARIO_NOT_FOUND: [2, 'no scenario of that name or path'],
  E_SCENARIO_SCRIPT: [2, 'the scenario script failed'],
  E_SCENARIO_TIMEOUT: [2, 'the scenario script did not end in time'],
  E_SCENARIO_INVALID: [2, 'the scenario is not valid'],
  E_TRACE_INVALID: [2, 'the recorded run is not valid'],
  E_ARRIVALS_INVALID: [2, 'the recorded arrivals are not valid'],
  E_CAPTURE_NOT_FOUND: [2, 'no capture of that name can be opened'],
  E_CAPTURE_INVALID: [2, 'the capture is damaged, or not one'],
  E_CAPTURE_LINK: [2, 'packets of that link type cannot be read'],
  E_NO_FRAMES: [2, 'there are no RoCEv2 frames in the capture'],
  E_NO_SETUP: [2, 'nothing says which queue pairs the capture is of'],
  E_SETUP_INVALID: [2, 'the text beside the capture cannot be read'],
  E_OUTPUT: [2, 'the results cannot be written'],
  E_LISTEN: [2, 'the address cannot be listened on'],
  E_ADDRESS: [2, 'the address is not valid'],
  E_TOKEN_REQUIRED: [2, 'listening beyond loopback needs a shared token'],
  E_HANDSHAKE: [
    2,
    'the peer runs something else: protocol, scenario, seed, mode, role or latency differ',
  ],
  E_REFUSED: [3, 'the peer refused the connection'],
  E_CONNECT: [3, 'the peer cannot be reached'],
  E_PEER_LOST: [3, 'the peer disconnected'],
  E_PEER_SILENT: [3, 'the peer said nothing for longer than --peer-timeout'],
  E_PEER_PROTOCOL: [3, 'the peer sent something that is not in the protocol'],
  E_PEER_FAILED: [3, 'the peer stopped with an error of its own'],
  E_STALLED: [1, 'the simulated world came to rest before its work was done'],
  E_TIME_LIMIT: [1, 'the simulated world did not finish within its time limit'],
  E_REPLAY_DIFFERS: [1, 'a replayed process does not end as the recorded one'],
  E_UNVERIFIED: [1, 'data differ between sender and receiver'],
  E_OPERATION: [1, 'an operation completed with an error'],
  E_BUG: [1, 'faultline contradicted itself; please report it'],
} as const satisfies Record<string, readonly [1 | 2 | 3, string]>;

export type FailureCode = keyof typeof failureCodes;

export class Failure extends Error {
  /** `place` says where (a file and line, an option, a field path, a peer), `expected` what was. */
  constructor(
    readonly code: FailureCode,
    message: string,
    readonly place = '',
    readonly expected = '',
  ) {
    super(message);
    this.name = 'Failure';
  }

  /** Exit status of a command that ends with this. */
  get exitStatus(): 1 | 2 | 3 {
    return failureCodes[this.code][0];
  }

  /** One line for standard error: `E_CODE place: message (expected …)`. */
  describe(): string {
    return `${this.code} ${this.explain()}`;
  }

  /** The same without the code: `place: message (expected …)`. */
  explain(): string {
    const place = this.place === '' ? '' : `${this.place}: `;
    const expected = this.expected === '' ? '' : ` (expected ${this.expected})`;
    return `${place}${this.message}${expected}`;
  }
}
