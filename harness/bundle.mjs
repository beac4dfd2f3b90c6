// Compiles an entry point, with every source of ours that it imports, into one file, and says where.
//
// TypeScript could be run file by file (tsx does, for tests and scenario scripts), but V8 does not
// fold constants across module boundaries, and the data plane is full of named constants. In one file
// it does: 1.2 to 1.5 times the packets per CPU second (docs/decisions/0007-one-file.md). Packages are
// left alone. Compiling takes a tenth of a second, once for each change of the sources.
// Plain JavaScript: it is what runs before there is anything compiled.

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const folders = ['transport', 'hca', 'kernel', 'harness'];

/** When the newest source was changed, in milliseconds. */
function newestSource() {
  let newest = statSync(fileURLToPath(import.meta.url)).mtimeMs;
  for (const folder of folders) {
    for (const file of readdirSync(root + folder, { recursive: true })) {
      if (!file.endsWith('.ts')) continue;
      newest = Math.max(newest, statSync(`${root}${folder}/${file}`).mtimeMs);
    }
  }
  return newest;
}

/** Sources find their neighbours (traces, scenarios) by import.meta.url, which must stay their own. */
const ownUrl = {
  name: 'own-url',
  setup({ onLoad }) {
    onLoad({ filter: /\.ts$/ }, ({ path }) => ({
      contents: readFileSync(path, 'utf8').replaceAll(
        'import.meta.url',
        JSON.stringify(pathToFileURL(path).href),
      ),
      loader: 'ts',
    }));
  },
};

/**
 * The URL of the compiled `entry` (a path below harness/), compiled anew if the sources have changed.
 * The file is named by the time of the newest source, so that what another checkout with the same
 * node_modules compiled is never taken for it.
 */
export async function bundled(entry) {
  const name = entry.replace(/\.ts$/, '');
  const stem = `${root}node_modules/.cache/faultline/${name}`;
  const target = `${stem}.${Math.round(newestSource())}.mjs`;
  if (!existsSync(target)) {
    const folder = dirname(target);
    mkdirSync(folder, { recursive: true });
    for (const old of readdirSync(folder)) {
      if (old.startsWith(`${basename(stem)}.`) && old.endsWith('.mjs')) {
        rmSync(`${folder}/${old}`, { force: true });
      }
    }
    // Another process may be doing the same: whoever is last to rename wins, with the same bytes.
    const draft = `${target}.${process.pid}`;
    await build({
      entryPoints: [`${root}harness/${entry}`],
      outfile: draft,
      bundle: true,
      format: 'esm',
      platform: 'node',
      target: 'node20',
      packages: 'external',
      minifySyntax: true,
      keepNames: false,
      legalComments: 'none',
      logLevel: 'error',
      plugins: [ownUrl],
    });
    renameSync(draft, target);
  }
  return pathToFileURL(target).href;
}
