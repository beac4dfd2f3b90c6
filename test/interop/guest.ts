/**
 * Owns one guest: QEMU as a child process (software emulation, so that no machine needs KVM), its
 * two network cards, its console, and the scripts run in it. Does not own the image (guest-image.ts).
 *
 * eth0, below rxe0, is a stream of Ethernet frames on a unix socket. eth1 is QEMU's user-mode
 * network: from it the guest reaches 127.0.0.1 of this machine as 10.0.2.2, and one of its TCP ports
 * is reached from here.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { AgentClient, type ScriptResult } from './agent-client.ts';
import type { GuestImage } from './guest-image.ts';

/** Leaves room for a path MTU of 4096. */
export const NETDEV_MTU = 4200;
/** How the guest reaches this machine's loopback, and the port on which its tools listen. */
export const HOST_SEEN_BY_GUEST = '10.0.2.2';
export const GUEST_TOOL_PORT = 18515;
const BOOT_TIMEOUT_MS = 180_000;

/** It never came up: QEMU, its version or this machine is the reason, not the adapter. */
export class NoGuest extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'NoGuest';
  }
}

export class Guest {
  private constructor(
    private readonly qemu: ChildProcess,
    private readonly agent: AgentClient,
    private readonly consolePath: string,
    /** The socket at which QEMU listens for the other end of eth0's link. */
    readonly linkPath: string,
    /** The port of 127.0.0.1 that leads to GUEST_TOOL_PORT in the guest. */
    readonly toolPort: number,
  ) {}

  /**
   * Boots `image`; sockets and the console go to `folder`. A second guest, `number` 2, is joined to
   * the first one's link instead of listening for it.
   */
  static async boot(image: GuestImage, folder: string, number = 1, link?: string): Promise<Guest> {
    const path = (name: string) => join(folder, `${number}.${name}`);
    const listens = link === undefined;
    const linkPath = link ?? path('link');
    const toolPort = await freePort();
    // The kernel ends the guest with us, also where we are killed and can end nothing ourselves.
    const qemu = spawn(
      'setpriv',
      [
        ...['--pdeathsig', 'KILL', 'qemu-system-x86_64'],
        ...['-name', 'faultline-guest', '-accel', 'tcg', '-cpu', 'max', '-machine', 'q35'],
        ...[
          '-m',
          '384',
          '-smp',
          '1',
          '-nodefaults',
          '-no-user-config',
          '-display',
          'none',
          '-no-reboot',
        ],
        ...['-kernel', image.kernel, '-initrd', image.initrd],
        '-append',
        `console=ttyS0 quiet panic=-1 nokaslr mitigations=off tsc=reliable no_timer_check random.trust_cpu=on RXE_IP=192.0.2.${number}/24 RXE_MTU=${NETDEV_MTU}`,
        ...['-serial', `file:${path('console')}`],
        ...['-device', 'virtio-serial-pci'],
        ...['-chardev', `socket,id=ctl,path=${path('agent')},server=on,wait=off`],
        ...['-device', 'virtserialport,chardev=ctl,name=ctl'],
        ...[
          '-netdev',
          `stream,id=link,server=${listens ? 'on' : 'off'},addr.type=unix,addr.path=${linkPath}`,
        ],
        ...['-device', `virtio-net-pci,netdev=link,mac=52:54:00:00:00:0${number},romfile=`],
        ...['-netdev', `user,id=user,hostfwd=tcp:127.0.0.1:${toolPort}-:${GUEST_TOOL_PORT}`],
        ...['-device', 'virtio-net-pci,netdev=user,romfile='],
        ...['-device', 'virtio-rng-pci'],
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    let complaint = '';
    qemu.stderr?.on('data', (text) => {
      complaint = (complaint + String(text)).slice(-2000);
    });
    const gone = new AbortController();
    qemu.once('error', (error) => gone.abort(`QEMU cannot be started: ${error.message}`));
    qemu.once('exit', (code) => gone.abort(`QEMU ended (${code}) ${complaint.trim()}`));
    try {
      const agent = await AgentClient.connect(path('agent'), BOOT_TIMEOUT_MS, gone.signal);
      return new Guest(qemu, agent, path('console'), linkPath, toolPort);
    } catch (error) {
      qemu.kill('SIGKILL');
      const reason = gone.signal.aborted ? String(gone.signal.reason) : (error as Error).message;
      throw new NoGuest(`${reason}\n${tail(path('console'))}`);
    }
  }

  /** Runs a shell script in the guest; one at a time. */
  exec(script: string, timeoutMs: number): Promise<ScriptResult> {
    return this.agent.exec(script, timeoutMs);
  }

  /** The last lines of its console. */
  consoleTail(): string {
    return tail(this.consolePath);
  }

  stop(): void {
    this.agent.close();
    this.qemu.kill('SIGKILL');
  }
}

function tail(path: string): string {
  try {
    return readFileSync(path, 'utf8').split('\n').slice(-20).join('\n').trim();
  } catch {
    return '(no console)';
  }
}

/** A TCP port of 127.0.0.1 that nobody listens on at the moment. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      const port = typeof address === 'object' && address !== null ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
}
