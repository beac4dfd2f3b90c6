/**
 * The command line: commands, options, help, and how errors in them are reported.
 *
 * What the commands do stands in `commands.ts`; values of options are read in `arguments.ts`.
 */
import { Command, CommanderError, Option } from 'commander';
import {
  parseGapScale,
  parseMode,
  parseModes,
  parsePeerTimeout,
  parseSeed,
  parseTransport,
  usage,
} from './arguments.ts';
import {
  type CompareOptions,
  compare,
  type HostOptions,
  host,
  list,
  type RunCommandOptions,
  replay,
  rerun,
  serve,
} from './commands.ts';
import { type ConformOptions, conform } from './conform/conform.ts';
import { TOKEN } from './coordination.ts';
import { type DecodeOptions, decode } from './decode/decode.ts';
import { reportError } from './exit.ts';
import { type ExperimentOptions, experiment, systems } from './experiments/commands.ts';
import {
  type GatewayOptions,
  parseDurationOption,
  parseIpv4Option,
  parseIpv6Option,
  parseMacOption,
  parseMtuOption,
  parsePeerOption,
} from './gateway/command.ts';
import type { ReplayCommandOptions } from './replay/command.ts';
import { parseRanks, parseScheme, schemeNames } from './replay/scheme.ts';
import { DEFAULT_SCENARIO } from './scenario/load.ts';
import { validate } from './validate/command.ts';

const scenarioHelp = "a name from 'list', or a path to a .ts file";

/** Reads `argv` (without node and script), runs the command and returns the exit status. */
export async function runCommandLine(argv: readonly string[]): Promise<number> {
  let status = 0;
  const program = commandLine((value) => {
    status = value;
  });
  try {
    await program.parseAsync(argv as string[], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) return reportError(error);
    if (error.exitCode === 0) return 0;
    if (error.code === 'commander.help') {
      process.stderr.write(program.helpInformation());
      return 2;
    }
    const message = error.message.replace(/^error: /, '');
    const place = /'(-[^' ]+)/.exec(message)?.[1] ?? 'command line';
    return reportError(usage(place, message, "what 'faultline --help' shows"));
  }
  return status;
}

function commandLine(finish: (status: number) => void): Command {
  const program = new Command('faultline')
    .description(
      'What a page fault in an RDMA memory region does to the line: pinned against on-demand.',
    )
    .showHelpAfterError(false)
    .exitOverride()
    .configureOutput({ outputError: () => {} });

  const compareCommand = program
    .command('compare')
    .description('run a scenario once for each mode and show the modes side by side')
    .argument('[scenario]', scenarioHelp, DEFAULT_SCENARIO)
    .addOption(modesOption())
    .action(async (name: string, options: CompareOptions) => finish(await compare(name, options)));
  addPlacement(compareCommand);
  addCommon(compareCommand, 'out/<scenario>');

  const runCommand = program
    .command('run')
    .description('run a scenario in one mode')
    .argument('<scenario>', scenarioHelp)
    .addOption(modeOption())
    .option('--arrivals <file>', 'run a recorded gateway session again; mode and seed are its own')
    .action(async (name: string, options: RunCommandOptions) =>
      finish(
        await (options.arrivals === undefined
          ? compare(name, { ...options, modes: [options.mode] })
          : rerun(name, options, options.arrivals)),
      ),
    );
  addPlacement(runCommand);
  addCommon(runCommand, 'out/<scenario>');

  const hostCommand = program
    .command('host')
    .description(
      'run one side by hand; the other side runs in another terminal or on another machine',
    )
    .argument('<scenario>', scenarioHelp)
    .requiredOption('--role <name>', "what runs here: a host ('a') or a node ('a.hca', 'a.host')")
    .option('--listen <url>', 'wait for the other side here: ws://host:port or ws+unix:/path')
    .option('--connect <url>', 'connect to the other side; tries for 10 seconds')
    .addOption(modeOption())
    .addOption(
      new Option('--token <text>', 'shared secret; needed to listen beyond loopback').env(TOKEN),
    )
    .action(async (name: string, options: HostOptions) => finish(await host(name, options)));
  addCommon(hostCommand, 'out/<scenario>-<role>');

  const gatewayCommand = program
    .command('gateway')
    .description("an adapter on a real Ethernet: frames over a socket, as of QEMU's -netdev stream")
    .option('--listen <address>', 'wait for the peer here: unix:PATH or tcp:HOST:PORT')
    .option('--connect <address>', 'connect to the peer; tries for 10 seconds')
    .option('--control <address>', 'take commands of control clients here (docs/GATEWAY.md)')
    .option('--scenario <script>', `${scenarioHelp}, with an external host (default: gateway)`)
    .option('--record <file>', 'keep everything that comes in, for run --arrivals')
    .option('--pcap <file>', 'write every frame to a pcapng file')
    .option('--json', 'print the final report as JSON on standard output')
    .addOption(modeOption())
    .addOption(seedOption());
  for (const option of gatewayOptions()) gatewayCommand.addOption(option);
  gatewayCommand.action(async (options: GatewayOptions) => finish(await serve(options)));

  program
    .command('conform')
    .description('replay captured conversations against our adapter, in both roles')
    .argument('<paths...>', 'captures, or folders to search for them')
    .option('--json', 'as JSON: [{ file, frames, compared, conforms, departures, reason }]')
    .action(async (paths: string[], options: ConformOptions) =>
      finish(await conform(paths, options)),
    );

  program
    .command('decode')
    .description('print the packets of a capture, one a line, and what each means to its receiver')
    .argument('<file>', 'a pcap or pcapng')
    .option('--json', 'as JSON: { file, frames: [...], summary }')
    .option('--strict', 'end with status 1 when a packet is malformed or has a wrong ICRC')
    .action(async (file: string, options: DecodeOptions) => finish(await decode(file, options)));

  program
    .command('experiment')
    .description('ask one question of the seed threads; without a name, list them')
    .argument('[name]', 'a name from the list')
    .addOption(seedOption())
    .option('--json', 'print everything as JSON')
    .option('--out <folder>', 'leave NAME.csv, NAME.json and, for some, a picture there')
    .action(async (name: string | undefined, options: ExperimentOptions) =>
      finish(await experiment(name, options)),
    );

  program
    .command('systems')
    .description('the systems of the seed threads, each with what shows it and what came out')
    .addOption(seedOption())
    .option('--json', 'as JSON: [{ id, command, result, ok }]')
    .action(async (options: { seed: number; json?: boolean }) => finish(await systems(options)));

  program
    .command('validate')
    .description('published figures against the model')
    .option('--json', 'as JSON: [{ figure, source, published, modelled, deviation, within, ... }]')
    .action(async (options: { json?: boolean }) => finish(await validate(options)));

  program
    .command('replay')
    .description('a recorded MPI run through memory, a registration scheme and the adapter')
    .argument('<run>', 'a recording that ships (hpcc, qe, qe-mmap128k), or the folder of one')
    .addOption(
      new Option('--ranks <list>', 'ranks to replay, separated by commas (default: all)').argParser(
        parseRanks,
      ),
    )
    .addOption(
      new Option('--scheme <name>', `how buffers are registered: ${schemeNames.join(', ')}`)
        .default('none')
        .argParser(parseScheme),
    )
    .addOption(seedOption())
    .option('--json', 'as JSON: { run, scheme, ranks: [...] } (docs/REPLAY.md)')
    .action(async (run: string, options: ReplayCommandOptions) =>
      finish(await replay(run, options)),
    );

  program
    .command('list')
    .description('the scenarios that ship')
    .option('--json', 'as JSON: [{ name, summary }]')
    .action(async (options: { json?: boolean }) => finish(await list(options)));
  return program;
}

function modesOption(): Option {
  return new Option('--modes <list>', 'pinned, odp or both, separated by a comma')
    .default(['pinned', 'odp'], 'pinned,odp')
    .argParser(parseModes);
}

function modeOption(): Option {
  return new Option('--mode <mode>', 'how memory is registered: pinned or odp')
    .default('pinned')
    .argParser(parseMode);
}

function seedOption(): Option {
  return new Option('--seed <number>', 'seed of all chance, 0 to 4294967295')
    .default(1)
    .argParser(parseSeed);
}

/** Options of a gateway whose values are checked. */
function gatewayOptions(): Option[] {
  return [
    new Option('--mac <address>', 'our MAC (default: 02:00:00:00:00:09)').argParser(parseMacOption),
    new Option('--ipv4 <address>', 'our IPv4 address (default: 192.0.2.9)').argParser(
      parseIpv4Option,
    ),
    new Option(
      '--ipv6 <address>',
      'our IPv6 address (default: link-local, from the MAC)',
    ).argParser(parseIpv6Option),
    new Option('--mtu <bytes>', 'MTU of the Ethernet (default: 1500)').argParser(parseMtuOption),
    new Option('--profile <name>', 'adapter profile, in place of that of the scenario'),
    new Option(
      '--peer <kind>',
      'departures of the peer to allow for: spec (none) or rxe',
    ).argParser(parsePeerOption),
    new Option('--duration <seconds>', 'end after so long').argParser(parseDurationOption),
  ];
}

function addPlacement(command: Command): void {
  command
    .addOption(
      new Option('--transport <kind>', 'ws: a process for each host; inproc: all in this process')
        .default('ws')
        .argParser(parseTransport),
    )
    .option('--split', 'with ws: a process for each adapter and each driver, five in all');
}

function addCommon(command: Command, out: string): void {
  command
    .addOption(seedOption())
    .option('--out <folder>', `where results go (default: ${out})`)
    .option('--json', 'print summary.json on standard output, and nothing else there')
    .option('--pcap', 'write every packet on the simulated wire to <mode>.pcapng there')
    .addOption(
      new Option(
        '--gap-scale <factor>',
        'of a replay: recorded gaps become compute time times this (default: 0)',
      ).argParser(parseGapScale),
    )
    .addOption(
      new Option('--peer-timeout <seconds>', 'how long the other side may be silent')
        .default(30_000, '30')
        .argParser(parsePeerTimeout),
    );
}
