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
import { type CompareOptions, compare, type HostOptions, host, list } from './commands.ts';
import { TOKEN } from './coordination.ts';
import { reportError } from './exit.ts';
import { DEFAULT_SCENARIO } from './scenario/load.ts';

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
    .action(async (name: string, options: Omit<CompareOptions, 'modes'> & HostOptions) =>
      finish(await compare(name, { ...options, modes: [options.mode] })),
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
    .addOption(
      new Option('--seed <number>', 'seed of all chance, 0 to 4294967295')
        .default(1)
        .argParser(parseSeed),
    )
    .option('--out <folder>', `where results go (default: ${out})`)
    .option('--json', 'print summary.json on standard output, and nothing else there')
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
