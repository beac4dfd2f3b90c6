/**
 * Owns the conversation with the command agent inside a guest (guest/agent.c): its greeting, and one
 * shell script at a time with its status and output. Does not own the guest (guest.ts).
 */
import { createConnection, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** What a script in the guest came to. */
export interface ScriptResult {
  readonly status: number;
  readonly output: string;
}

/** The guest does not answer any more, or not in time. */
export class GuestLost extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'GuestLost';
  }
}

/** A promise with its two ends outside. */
interface Waiting {
  resolve(result: ScriptResult): void;
  reject(error: Error): void;
}

export class AgentClient {
  private received: Buffer = Buffer.alloc(0);
  private waiting: Waiting | undefined;
  private lost: GuestLost | undefined;

  private constructor(private readonly socket: Socket) {
    socket.on('data', (bytes: Buffer) => {
      this.received = this.received.length === 0 ? bytes : Buffer.concat([this.received, bytes]);
      this.deliver();
    });
    socket.on('error', (error) => this.lose(`its agent's socket failed: ${error.message}`));
    socket.on('close', () => this.lose('its agent closed the socket'));
  }

  /** Connects as soon as QEMU listens at `path`, and waits for the agent's greeting. */
  static async connect(path: string, timeoutMs: number, signal: AbortSignal): Promise<AgentClient> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      signal.throwIfAborted();
      const socket = await open(path);
      if (socket !== undefined) {
        const client = new AgentClient(socket);
        // The greeting has no request: an empty script is answered only after it.
        await client.exec('', deadline - performance.now(), signal);
        return client;
      }
      if (performance.now() > deadline) throw new GuestLost('QEMU does not listen for its agent');
      await sleep(20);
    }
  }

  /** Runs a shell script in the guest, one at a time. */
  exec(script: string, timeoutMs: number, signal?: AbortSignal): Promise<ScriptResult> {
    if (this.lost !== undefined) return Promise.reject(this.lost);
    if (this.waiting !== undefined) throw new Error('the agent is busy with another script');
    const bytes = Buffer.from(script);
    return new Promise<ScriptResult>((resolve, reject) => {
      const timer = setTimeout(
        () => this.lose(`a script did not end within ${Math.round(timeoutMs)} ms: ${script}`),
        Math.max(0, timeoutMs),
      );
      const aborted = () => this.lose(String(signal?.reason));
      signal?.addEventListener('abort', aborted);
      const done = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', aborted);
        this.waiting = undefined;
      };
      this.waiting = {
        resolve: (result) => {
          done();
          resolve(result);
        },
        reject: (error) => {
          done();
          reject(error);
        },
      };
      this.socket.write(`EXEC ${bytes.length}\n`);
      this.socket.write(bytes);
    });
  }

  close(): void {
    this.lose('closed');
    this.socket.destroy();
  }

  private deliver(): void {
    for (;;) {
      const end = this.received.indexOf(10);
      if (end < 0) return;
      const [word, status, length] = this.received.toString('latin1', 0, end).split(' ');
      if (word === 'READY') {
        this.received = this.received.subarray(end + 1);
        continue;
      }
      const total = end + 1 + Number(length);
      if (word !== 'OK' || !(total > 0)) {
        this.lose('its agent sent something else');
        return;
      }
      if (this.received.length < total) return;
      const output = this.received.toString('utf8', end + 1, total);
      this.received = this.received.subarray(total);
      this.waiting?.resolve({ status: Number(status), output });
    }
  }

  /** Nothing can be asked any more: an answer that came late would be taken for another's. */
  private lose(why: string): void {
    this.lost ??= new GuestLost(`the guest is lost: ${why}`);
    this.waiting?.reject(this.lost);
  }
}

function open(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    socket.once('connect', () => resolve(socket));
    socket.once('error', () => resolve(undefined));
  });
}
