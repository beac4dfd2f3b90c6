/**
 * `npm run interop`: our adapter and a real Linux kernel's rdma_rxe, every operation in both
 * directions. Owns the command line, what is started and stopped, and the exit status:
 *
 * 0 every cell is green or excused by a rule, 1 a cell is red, 2 the command line is not understood,
 * 3 the guest or the gateway was lost, 4 the packages it needs could not be had, 5 no guest boots here.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { GuestLost } from './agent-client.ts';
import { cellsOf, fullGroups, type Group, shortGroups } from './cells.ts';
import { Gateway, GatewayLost } from './gateway.ts';
import { Guest, NoGuest } from './guest.ts';
import { GuestSide } from './guest-end.ts';
import { guestImage, NoPackages } from './guest-image.ts';
import { OurSide } from './our-end.ts';
import { type Findings, jsonOf, Progress, renderFindings, say, verdictOf } from './report.ts';
import { type CellResult, runCells, type Sides } from './run-cells.ts';
import { runTools, type ToolResult, toolRuns } from './tools.ts';

const USAGE = `usage: npm run interop -- [options]
  --short             a fifth of the cells, for continuous integration
  --json              results as JSON on standard output instead of tables
  --against guest     a second guest instead of our adapter: what rxe makes of itself, no loss
  --image FOLDER      a guest built earlier by test/interop/guest/build.sh
  --kernel PACKAGE    a kernel package of Debian trixie or PACKAGE/SUITE (default: newest backport)
  --only TEXT         only operations and tools whose name contains it
  --pcap FILE         every frame of the link, as the gateway's --pcap
  --minutes N         give up after so long (default: 45, short: 8)`;

const EXIT_RED = 1;
const EXIT_USAGE = 2;
const EXIT_LOST = 3;
const EXIT_NO_PACKAGES = 4;
const EXIT_NO_GUEST = 5;

interface Options {
  readonly isShort: boolean;
  readonly isJson: boolean;
  readonly against: 'us' | 'guest';
  readonly image: string | undefined;
  readonly kernel: string | undefined;
  readonly minutes: number;
  readonly only: string;
  readonly pcap: string | undefined;
}

/** What has been started, stopped in any case. */
const started: { stop(): void; consoleTail(): string }[] = [];

process.exitCode = await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<number> {
  const options = parseOptions(args);
  if (options === undefined) return EXIT_USAGE;
  const folder = mkdtempSync(join(tmpdir(), 'faultline-interop-'));
  const stop = () => {
    for (const process of started.splice(0)) process.stop();
    rmSync(folder, { recursive: true, force: true });
  };
  process.once('exit', stop);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      stop();
      process.exit(130);
    });
  }
  const deadline = setTimeout(() => {
    say(`not done after ${options.minutes} minutes`);
    stop();
    process.exit(EXIT_LOST);
  }, options.minutes * 60_000);
  try {
    const findings = await run(options, folder);
    const isJson = options.isJson;
    process.stdout.write(
      `${isJson ? JSON.stringify(jsonOf(findings), null, 1) : renderFindings(findings)}\n`,
    );
    return verdictOf(findings).red > 0 ? EXIT_RED : 0;
  } catch (error) {
    return explainFailure(error);
  } finally {
    clearTimeout(deadline);
    stop();
  }
}

async function run(options: Options, folder: string): Promise<Findings> {
  const startedMs = performance.now();
  const image = await guestImage(options.image, options.kernel);
  const guest = await Guest.boot(image, folder);
  started.push(guest);
  say(`guest is up (${image.description})`);
  const { sides, finish, groups } = await theOtherSide(options, guest, image, folder);
  const cells: CellResult[] = [];
  const tools: ToolResult[] = [];
  const planned = groups.flatMap((group) => cellsOf(group, options.only));
  const runs = toolRuns(options.only);
  const progress = new Progress(planned.length + runs.length);
  await runCells(sides, planned, (result) => {
    cells.push(result);
    progress.cell(result);
  });
  await runTools(guest, sides.us, runs, (result) => {
    tools.push(result);
    progress.tool(result);
  });
  const seconds = (performance.now() - startedMs) / 1000;
  return { guest: image.description, cells, tools, seconds, ...(await finish()) };
}

/** Our adapter, or a second guest in its place. */
async function theOtherSide(
  options: Options,
  guest: Guest,
  image: Awaited<ReturnType<typeof guestImage>>,
  folder: string,
): Promise<{
  sides: Sides;
  groups: Group[];
  finish(): Promise<Pick<Findings, 'counters' | 'lag'>>;
}> {
  const all = options.isShort ? shortGroups() : fullGroups();
  const guestSide = new GuestSide(guest);
  if (options.against === 'guest') {
    const second = await Guest.boot(image, folder, 2, guest.linkPath);
    started.push(second);
    return {
      sides: { guest: guestSide, us: new GuestSide(second, 'second guest'), wire: undefined },
      groups: all.filter(({ loss, memory }) => loss === 'none' && memory === 'pinned'),
      finish: async () => ({ counters: undefined, lag: undefined }),
    };
  }
  const gateway = await Gateway.start(
    guest.linkPath,
    folder,
    options.pcap === undefined ? [] : ['--pcap', options.pcap],
  );
  started.push(gateway);
  return {
    sides: { guest: guestSide, us: new OurSide(gateway), wire: gateway },
    groups: all,
    finish: async () => ({ counters: await gateway.counters(), lag: await gateway.quit() }),
  };
}

function parseOptions(args: readonly string[]): Options | undefined {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        short: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        against: { type: 'string', default: 'us' },
        image: { type: 'string' },
        kernel: { type: 'string' },
        minutes: { type: 'string' },
        only: { type: 'string', default: '' },
        pcap: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    });
    const minutes = Number(values.minutes ?? (values.short ? 8 : 45));
    if (values.against !== 'us' && values.against !== 'guest')
      throw new Error(`--against ${values.against}: us or guest`);
    if (!(minutes > 0 && minutes <= 24 * 60))
      throw new Error(`--minutes ${values.minutes}: a number of minutes`);
    if (values.help) throw new Error('');
    return {
      isShort: values.short,
      isJson: values.json,
      against: values.against,
      image: values.image,
      kernel: values.kernel,
      minutes,
      only: values.only,
      pcap: values.pcap,
    };
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${USAGE}\n`.trimStart());
    return undefined;
  }
}

/** Says on standard error what went wrong; returns the exit status. */
function explainFailure(error: unknown): number {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof NoPackages) {
    say(`NOT RUN: ${message.replace(/^guest: /, '')}`);
    return EXIT_NO_PACKAGES;
  }
  if (error instanceof NoGuest) {
    say(`NOT RUN: no guest boots here: ${message}`);
    return EXIT_NO_GUEST;
  }
  say(message);
  for (const process of started) say(`its last words:\n${process.consoleTail()}`);
  if (error instanceof GuestLost || error instanceof GatewayLost) return EXIT_LOST;
  if (error instanceof Error) say(error.stack ?? '');
  return EXIT_RED;
}
