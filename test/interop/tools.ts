/**
 * Owns the runs of ready-made tools in the guest against our side: perftest's bandwidth tests and
 * rdma-core's ping-pongs, as client and as server. Our side does with its queue pair what the same
 * tool would do at that end. Does not own the tools' TCP exchange (exchange/).
 */
import type { Command, Completion, End, Path, Service, Side } from './end.ts';
import { gidOf, ipv4Of } from './exchange/address.ts';
import { connect, type Line, OneConnection } from './exchange/line.ts';
import { noReport, type PerftestAddress, runPerftest } from './exchange/perftest.ts';
import { joinPingpong, type PingpongAddress, servePingpong } from './exchange/pingpong.ts';
import { GUEST_TOOL_PORT, type Guest, HOST_SEEN_BY_GUEST } from './guest.ts';

const ITERATIONS = 20;
const PERFTEST_MTU_BYTES = 2048;
/** What the ping-pongs use when not told otherwise. */
const PINGPONG_MTU_BYTES = 1024;
const GRH_BYTES = 40;
/** The tools move small messages through this much of their buffer. */
const MEMORY_BYTES = 65_536;
const TIMEOUT_MS = 30_000;
const OUTSTANDING_READS = 16;

export type ToolRole = 'client' | 'server';

export interface ToolResult {
  readonly tool: string;
  /** Which end of the tool the guest was. */
  readonly guestRole: ToolRole;
  readonly problems: readonly string[];
  readonly ms: number;
}

/** A tool, and what our side does in its place. */
interface Tool {
  readonly name: string;
  readonly command: string;
  readonly service: Service;
  readonly mtuBytes: number;
  /** The exchange and the traffic of our end. */
  play(context: PlayContext): Promise<void>;
}

interface PlayContext {
  readonly line: Line;
  readonly end: End;
  readonly ourRole: ToolRole;
}

/** Busy polling would starve rxe, which has the same single processor. */
const SLOWLY = 'renice -n 19 -p $$ >/dev/null';
/** Common to all perftest's: the device, the GID, no complaint about the CPU's clock. */
const PERFTEST = `-d rxe0 -x 1 -F -n ${ITERATIONS}`;
const PINGPONG = `-e -d rxe0 -g 1 -n ${ITERATIONS}`;

const tools: readonly Tool[] = [
  perftest('ib_send_bw', '-e -s 8192', { verb: 'post', op: 'send', len: 8192 }),
  perftest('ib_write_bw', '-s 16384', { verb: 'post', op: 'write', len: 16_384 }),
  perftest('ib_read_bw', '-e -s 16384', { verb: 'post', op: 'read', len: 16_384 }),
  perftest('ib_atomic_bw', '-e -A FETCH_AND_ADD', { verb: 'post', op: 'faa', len: 8, add: 1 }),
  perftest('ib_atomic_bw', '-e -A CMP_AND_SWAP', { verb: 'post', op: 'cas', len: 8 }),
  pingpong('rc', 4096),
  pingpong('uc', 3000),
  pingpong('ud', 1000),
];

/** A tool, and which end of it the guest is. */
export interface ToolRun {
  readonly tool: Tool;
  readonly guestRole: ToolRole;
}

/** Every tool whose name contains `only`, with the guest as client and as server. */
export function toolRuns(only = ''): ToolRun[] {
  return tools
    .filter(({ name }) => name.includes(only))
    .flatMap((tool) => (['client', 'server'] as const).map((guestRole) => ({ tool, guestRole })));
}

/** Runs tools in `guest` against `us`, whose memory is registered on demand. */
export async function runTools(
  guest: Guest,
  us: Side,
  runs: readonly ToolRun[],
  onResult: (result: ToolResult) => void,
): Promise<void> {
  let psn = 0x123456;
  for (const { tool, guestRole } of runs) {
    const started = performance.now();
    const path: Path = { mtuBytes: tool.mtuBytes, network: 'ipv4' };
    const memory = { memoryBytes: MEMORY_BYTES, isOnDemand: true };
    const end = await us.open({ service: tool.service, psn: psn++, path, ...memory });
    try {
      const run = guestRole === 'client' ? againstClient : againstServer;
      const problems = await run(guest, tool, end);
      onResult({ tool: tool.name, guestRole, problems, ms: performance.now() - started });
    } finally {
      await end.close();
    }
  }
}

/** The guest's tool is told to connect to us. */
async function againstClient(guest: Guest, tool: Tool, end: End): Promise<string[]> {
  const listener = await OneConnection.listen();
  try {
    const theirs = guest.exec(
      `${SLOWLY}; timeout ${TIMEOUT_MS / 1000} ${tool.command} -p ${listener.port} ${HOST_SEEN_BY_GUEST}`,
      2 * TIMEOUT_MS,
    );
    const ended = theirs.then(() => Promise.reject(new Error('the tool did not connect')));
    const ours = listener.accept(ended, TIMEOUT_MS).then((line) => play(tool, line, end, 'server'));
    return await verdict(ours, theirs);
  } finally {
    listener.close();
  }
}

/** The guest's tool listens, and we connect to it. */
async function againstServer(guest: Guest, tool: Tool, end: End): Promise<string[]> {
  const port = GUEST_TOOL_PORT.toString(16).toUpperCase().padStart(4, '0');
  const log = '/tmp/tool';
  // Listening is state 0A in /proc/net/tcp.
  const { status, output } = await guest.exec(
    `rm -f ${log}.*; (${SLOWLY}; timeout ${TIMEOUT_MS / 1000} ${tool.command} -p ${GUEST_TOOL_PORT} >${log}.log 2>&1; echo $? >${log}.status) &
     for i in $(seq 100); do cat /proc/net/tcp /proc/net/tcp6 | grep -q ":${port} .* 0A " && exit 0; sleep 0.1; done; cat ${log}.log; exit 1`,
    TIMEOUT_MS,
  );
  if (status !== 0) return [`the tool does not listen: ${output.trim()}`];
  const line = await connect(guest.toolPort, TIMEOUT_MS);
  const ours = play(tool, line, end, 'client');
  await ours.catch(() => undefined);
  const theirs = guest.exec(
    `for i in $(seq ${TIMEOUT_MS / 100}); do [ -s ${log}.status ] && break; sleep 0.1; done; cat ${log}.log; exit $(cat ${log}.status)`,
    2 * TIMEOUT_MS,
  );
  return verdict(ours, theirs);
}

async function play(tool: Tool, line: Line, end: End, ourRole: ToolRole): Promise<void> {
  try {
    await tool.play({ line, end, ourRole });
  } finally {
    line.close();
  }
}

/** Both ends have to be content. */
async function verdict(
  ours: Promise<void>,
  theirs: Promise<{ status: number; output: string }>,
): Promise<string[]> {
  const [mine, tool] = await Promise.allSettled([ours, theirs]);
  const problems: string[] = [];
  if (mine.status === 'rejected') problems.push(`us: ${(mine.reason as Error).message}`);
  if (tool.status === 'rejected') throw tool.reason;
  const { status, output } = tool.value;
  if (status !== 0) problems.push(`the tool ended with ${status}: ${lastLines(output)}`);
  return problems;
}

function lastLines(output: string): string {
  return output.trim().split('\n').slice(-3).join(' / ');
}

/** An ib_*_bw, in which the client does all that `request` says and the server holds still. */
function perftest(program: string, options: string, request: Command & { len: number }): Tool {
  const isTwoSided = request.op === 'send';
  const command = `${program} ${PERFTEST} ${options}`;
  const name =
    request.op === 'faa' || request.op === 'cas'
      ? `${program} ${options.split(' ').at(-1)}`
      : program;
  return {
    name,
    command,
    service: 'rc',
    mtuBytes: PERFTEST_MTU_BYTES,
    async play({ line, end, ourRole }) {
      const { qpn, psn, rkey, memoryAddress } = end.address;
      const mine: PerftestAddress = {
        lid: 0,
        outstandingReads: OUTSTANDING_READS,
        qpn,
        psn,
        rkey,
        address: memoryAddress,
        gid: gidOf(plainIp(end.address.gid)),
        srqn: 0,
      };
      const receives = isTwoSided && ourRole === 'server';
      await runPerftest(line, ourRole, {
        mtuBytes: PERFTEST_MTU_BYTES,
        address: mine,
        isTwoSided,
        report:
          ourRole === 'server'
            ? noReport
            : { ...noReport, messageBytes: BigInt(request.len), iterations: BigInt(ITERATIONS) },
        async connect(theirs, mtuBytes) {
          await end.connect(endOf(theirs, ipv4Of(theirs.gid)), { mtuBytes, network: 'ipv4' });
          if (receives) await must(end, [{ verb: 'recv', len: request.len, n: ITERATIONS }]);
        },
        async run(theirs) {
          const waiting = { verb: 'wait', n: ITERATIONS, ms: TIMEOUT_MS };
          if (receives) {
            const completions = await must(end, [waiting]);
            checkReceived(completions, request.len);
          } else if (ourRole === 'client') {
            await must(end, [
              { ...request, raddr: theirs.address, rkey: theirs.rkey, n: ITERATIONS },
              waiting,
            ]);
          }
        },
      });
    },
  };
}

/** An ibv_*_pingpong, in which the client starts and each end sends after it has received. */
function pingpong(service: Service, messageBytes: number): Tool {
  const program = `ibv_${service}_pingpong`;
  const header = service === 'ud' ? GRH_BYTES : 0;
  return {
    name: program,
    command: `${program} ${PINGPONG} -s ${messageBytes}`,
    service,
    mtuBytes: PINGPONG_MTU_BYTES,
    async play({ line, end, ourRole }) {
      const { qpn, psn } = end.address;
      const mine: PingpongAddress = { lid: 0, qpn, psn, gid: gidOf(plainIp(end.address.gid)) };
      const exchange = ourRole === 'server' ? servePingpong : joinPingpong;
      await exchange(line, mine, async (theirs) => {
        const path: Path = { mtuBytes: PINGPONG_MTU_BYTES, network: 'ipv4' };
        await end.connect(endOf(theirs, ipv4Of(theirs.gid)), path);
        const receive = { len: messageBytes + header };
        // A fault of an unreliable service would cost the message.
        const ready = service === 'rc' ? [] : [{ verb: 'advise', ...receive, write: 1 }];
        await must(end, [...ready, { verb: 'recv', ...receive, n: ITERATIONS }]);
      });
      const send: Command = { verb: 'post', op: 'send', off: MEMORY_BYTES / 2, len: messageBytes };
      let received = 0;
      let sent = 0;
      const post = () => {
        sent++;
        return must(end, [send]);
      };
      if (ourRole === 'client') await post();
      // Each message received is answered, until both have sent as many as they should.
      for (let done = 0; done < 2 * ITERATIONS; done++) {
        const [completion] = await must(end, [{ verb: 'wait', n: 1, ms: TIMEOUT_MS }]);
        if (completion?.op !== 'recv') continue;
        checkReceived([completion], messageBytes + header);
        received++;
        if (sent < ITERATIONS) await post();
      }
      if (received !== ITERATIONS)
        throw new Error(`${received} of ${ITERATIONS} messages received`);
    },
  };
}

/** Runs commands at our end, of which none may fail. */
async function must(end: End, commands: readonly Command[]): Promise<readonly Completion[]> {
  const { errors, completions } = await end.run(commands);
  const failed = completions.find(({ status }) => status !== 0);
  if (errors.length > 0) throw new Error(errors.join('; '));
  if (failed !== undefined)
    throw new Error(`${failed.op} completed with ${failed.status} ${failed.statusText}`);
  return completions;
}

function checkReceived(completions: readonly Completion[], length: number): void {
  const other = completions.find(
    (completion) => completion.op !== 'recv' || completion.length !== length,
  );
  if (other !== undefined) throw new Error(`a ${other.op} of ${other.length} bytes, not ${length}`);
}

function endOf(theirs: { qpn: number; psn: number; rkey?: number; address?: bigint }, gid: string) {
  return {
    qpn: theirs.qpn,
    psn: theirs.psn,
    gid,
    memoryAddress: theirs.address ?? 0n,
    rkey: theirs.rkey ?? 0,
  };
}

/** `::ffff:192.0.2.1` is 192.0.2.1. */
function plainIp(gid: string): string {
  return gid.replace(/^::ffff:/, '');
}
