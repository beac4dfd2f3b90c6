#!/usr/bin/env node
// Starts the command line, the tests, the benchmarks or the interop run, and installs the locked
// dependencies first when they are missing, so that `npm start` and `npm test` each work alone on a
// fresh clone.
// Plain JavaScript without dependencies, because it runs before there are any.
// Nothing here writes to stdout: it belongs to the command.

import { spawn } from 'node:child_process';
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const lock = `${root}.install.lock`;

/** What each command runs: an entry below harness/, and arguments that come before the given ones. */
const entries = {
  start: { entry: 'cli.ts', before: ['compare'] },
  cli: { entry: 'cli.ts', before: [] },
  bench: { entry: 'bench/main.ts', before: [] },
};

/** Runs a program to its end, passing signals on to it. Resolves to its exit code or signal. */
function run(program, args, options) {
  const child = spawn(program, args, options);
  // Ctrl-C at a terminal reaches the whole process group by itself: once is enough.
  const forward = (signal) => {
    if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
  };
  process.on('SIGINT', forward).on('SIGTERM', forward);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      process.off('SIGINT', forward).off('SIGTERM', forward);
      resolve(signal ?? code);
    });
  });
}

function modified(file) {
  return statSync(root + file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function installed() {
  return modified('node_modules/.package-lock.json') >= modified('package-lock.json');
}

/** Takes the install lock, a file holding its owner's process id. False while another holds it. */
function takeLock() {
  try {
    writeFileSync(lock, String(process.pid), { flag: 'wx' });
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
  }
  try {
    process.kill(Number(readFileSync(lock, 'utf8')), 0);
  } catch (error) {
    if (error.code === 'ESRCH') rmSync(lock, { force: true }); // its owner was killed
  }
  return false;
}

/** Installs the locked dependencies unless they are there. Resolves to npm's exit code or signal. */
async function install() {
  while (!installed()) {
    if (!takeLock()) {
      await sleep(200);
      continue;
    }
    try {
      if (installed()) break;
      process.stderr.write('faultline: installing the locked dependencies ...\n');
      const npmCi = ['ci', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error'];
      const onWindows = process.platform === 'win32'; // where npm is a batch file
      return await run('npm', npmCi, { cwd: root, stdio: ['ignore', 2, 2], shell: onWindows });
    } finally {
      rmSync(lock, { force: true });
    }
  }
  return 0;
}

function finish(outcome) {
  if (typeof outcome === 'string') process.kill(process.pid, outcome);
  else process.exitCode = outcome;
}

/** Runs an entry in this process: its signals, its standard streams and its IPC channel are ours. */
async function runHere({ entry, before }, args) {
  const { bundled } = await import('./bundle.mjs');
  const url = await bundled(entry);
  process.argv = [process.argv[0], process.argv[1], ...before, ...args];
  await import(url);
}

const vitest = `${root}node_modules/vitest/vitest.mjs`;
const [command, ...args] = process.argv.slice(2);
const problem = await install();
if (problem) finish(problem);
else if (command === 'test') {
  finish(
    await run(process.execPath, [vitest, 'run', '--root', root, ...args], { stdio: 'inherit' }),
  );
} else if (command === 'interop') {
  const typescript = ['--import', import.meta.resolve('tsx')];
  const main = `${root}test/interop/main.ts`;
  finish(await run(process.execPath, [...typescript, main, ...args], { stdio: 'inherit' }));
}
// Anything but a name from the table is for the command line, so this file also serves as its bin.
else if (Object.hasOwn(entries, command ?? '')) await runHere(entries[command], args);
else await runHere(entries.cli, process.argv.slice(2));
