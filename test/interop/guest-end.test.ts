/** What is said between this machine and a guest, without a guest. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AgentClient, GuestLost } from './agent-client.ts';
import { commandLine, parseAnswer } from './guest-end.ts';

let folder = '';
let server: Server | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'faultline-test-'));
});
afterEach(() => {
  server?.close();
  rmSync(folder, { recursive: true, force: true });
});

/** An agent that treats each connection with `behave`. */
function agent(behave: (socket: Socket) => void): Promise<string> {
  const path = join(folder, 'agent');
  return new Promise((resolve) => {
    server = createServer(behave).listen(path, () => resolve(path));
  });
}

/** Answers scripts as the guest's agent does, in pieces of `pieceBytes`. */
function answering(answer: (script: string) => string, pieceBytes = 1 << 20) {
  return (socket: Socket) => {
    let received = '';
    socket.on('error', () => {});
    socket.write('READY 3.14\n');
    socket.on('data', (bytes) => {
      received += String(bytes);
      const match = /^EXEC (\d+)\n/.exec(received);
      if (match === null || received.length < match[0].length + Number(match[1])) return;
      const reply = answer(received.slice(match[0].length));
      received = '';
      for (let i = 0; i < reply.length; i += pieceBytes)
        socket.write(reply.slice(i, i + pieceBytes));
    });
  };
}

const calm = new AbortController().signal;

describe('the agent', () => {
  it('greets, runs scripts, and gives status and output, however they are cut', async () => {
    for (const pieceBytes of [1, 7, 1 << 20]) {
      const path = await agent(
        answering((script) => `OK 3 ${script.length}\n${script}`, pieceBytes),
      );
      const client = await AgentClient.connect(path, 5_000, calm);
      expect(await client.exec('echo hello\nworld', 5_000)).toEqual({
        status: 3,
        output: 'echo hello\nworld',
      });
      client.close();
      await new Promise((resolve) => server?.close(resolve));
    }
  });

  it.each([
    ['says something else', () => 'HELLO\n', /sent something else/],
    ['says nothing', () => '', /did not end within/],
  ])('that %s is lost, and stays lost', async (_, answer, message) => {
    const path = await agent(answering((script) => (script === '' ? 'OK 0 0\n' : answer())));
    const client = await AgentClient.connect(path, 5_000, calm);
    await expect(client.exec('true', 200)).rejects.toThrow(message);
    await expect(client.exec('true', 200)).rejects.toBeInstanceOf(GuestLost);
    client.close();
  });

  it('that leaves is lost at once', async () => {
    const path = await agent((socket) => {
      socket.write('READY 1\nOK 0 0\n');
      socket.on('data', (bytes) => {
        if (String(bytes).includes('true')) socket.destroy();
      });
    });
    const client = await AgentClient.connect(path, 5_000, calm);
    await expect(client.exec('true', 5_000)).rejects.toBeInstanceOf(GuestLost);
  });

  it('is waited for no longer than QEMU lives', async () => {
    const gone = new AbortController();
    setTimeout(() => gone.abort('QEMU ended'), 50);
    const connecting = AgentClient.connect(join(folder, 'nowhere'), 5_000, gone.signal);
    await expect(connecting).rejects.toThrow('QEMU ended');
  });
});

describe('rcpeer', () => {
  it('is told commands in its own words', () => {
    expect(commandLine({ verb: 'recv', off: 16, len: 8, wrid: 7 })).toBe('recv off=16 len=8 id=7');
    expect(commandLine({ verb: 'mw', mw: 3 })).toBe('mw id=3');
    expect(commandLine({ verb: 'post', op: 'bind', mw: 3, val: 1n << 63n })).toBe(
      'post op=bind mw=3 val=9223372036854775808',
    );
  });

  it('is understood', () => {
    const answer = parseAnswer(
      [
        'POSTED op=send id=1 len=100',
        'WC id=1 status=0 (success) op=recv_write_imm len=3000 imm=0xface0001 src_qp=0x000011 flags=2',
        'WC id=2 status=0 (success) op=recv len=8 inv=0x00000a01 src_qp=0x000011 flags=4',
        'WC id=18446744073709551615 status=10 (remote access error) vendor=0x0',
        'WAITED got=3 ms=4',
        'MW id=0 rkey=0x0800011d',
        'DUMP 0001ff',
        'CHECK ok len=5',
        'ERR CHECK bad at=3 got=00 want=01',
        'ERR wait: 1 of 2 completions in 10 ms',
      ].join('\n'),
    );
    expect(answer.completions[0]).toEqual({
      id: 1,
      status: 0,
      statusText: 'success',
      op: 'recv_write_imm',
      length: 3000,
      immediate: 0xface0001,
      invalidatedRkey: undefined,
    });
    expect(answer.completions[1]?.invalidatedRkey).toBe(0xa01);
    expect(answer.completions[2]).toMatchObject({ status: 10, statusText: 'remote access error' });
    expect(answer.windowRkeys).toEqual([0x0800011d]);
    expect(answer.dumps).toEqual([Buffer.of(0, 1, 0xff)]);
    expect(answer.errors).toEqual([
      'CHECK bad at=3 got=00 want=01',
      'wait: 1 of 2 completions in 10 ms',
    ]);
  });

  it('that is not there is an error', () => {
    expect(parseAnswer('/tmp/rcpeer.1: No such file or directory').errors.length).toBe(1);
    expect(parseAnswer('sh: rcpeer: not found').errors.length).toBe(1);
  });
});

describe('npm run interop', () => {
  /** Runs it with nothing on the path but what a shell script needs. */
  function run(...args: string[]): Promise<{ code: number | null; said: string }> {
    const path = join(folder, 'bin');
    mkdirSync(path);
    for (const program of ['bash', 'dirname', 'mkdir', 'xargs']) {
      symlinkSync(`/usr/bin/${program}`, join(path, program));
    }
    const main = fileURLToPath(new URL('main.ts', import.meta.url));
    const child: ChildProcess = spawn(process.execPath, ['--import', 'tsx', main, ...args], {
      env: { PATH: path, HOME: folder },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let said = '';
    child.stdout?.on('data', (text) => {
      said += String(text);
    });
    child.stderr?.on('data', (text) => {
      said += String(text);
    });
    return new Promise((resolve) => child.once('exit', (code) => resolve({ code, said })));
  }

  it('says that packages cannot be had, with a status of its own', async () => {
    const { code, said } = await run('--short');
    expect(said).toContain('NOT RUN: packages cannot be had');
    expect(code).toBe(4);
  });

  it.each([[['--foo']], [['--against', 'nobody']], [['--minutes', '0']], [['--minutes', 'ten']]])(
    'does not understand %j',
    async (args) => {
      const { code, said } = await run(...args);
      expect(said).toContain('usage: npm run interop');
      expect(code).toBe(2);
    },
  );
});
