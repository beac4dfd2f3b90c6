/**
 * Owns where the guest's image is: it is built by guest/build.sh into a cache, once for each version
 * of what it is made of. Does not own what is in it (guest/) nor running it (guest.ts).
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const sources = fileURLToPath(new URL('guest/', import.meta.url));
const cache = fileURLToPath(new URL('../../node_modules/.cache/faultline/guest/', import.meta.url));
/** Exit status of guest/build.sh when packages are the reason. */
const NO_PACKAGES = 4;

/** What QEMU boots, and what is in it. */
export interface GuestImage {
  readonly kernel: string;
  readonly initrd: string;
  readonly description: string;
}

/** Packages of Debian could not be had: nothing was tried, so nothing failed. */
export class NoPackages extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = 'NoPackages';
  }
}

/** The image at `folder`, or the cached one, built with `kernelPackage` when it is not there yet. */
export async function guestImage(
  folder: string | undefined,
  kernelPackage: string | undefined,
): Promise<GuestImage> {
  const home = folder ?? join(cache, version(kernelPackage));
  if (!existsSync(join(home, 'guest.txt'))) {
    if (folder !== undefined) throw new Error(`${folder} has no guest.txt: not built by build.sh`);
    await build(home, kernelPackage);
  } else {
    await script(['boot', home]);
  }
  return {
    kernel: join(home, 'vmlinuz'),
    initrd: join(home, 'initrd.cpio'),
    description: readFileSync(join(home, 'guest.txt'), 'utf8').trim().split('\n').join(', '),
  };
}

/** Sources and kernel by content: an image made of others is not the same guest. */
function version(kernelPackage = ''): string {
  const hash = createHash('sha256').update(kernelPackage);
  for (const name of readdirSync(sources).sort()) {
    if (name !== 'README.md') hash.update(name).update(readFileSync(join(sources, name)));
  }
  return hash.digest('hex').slice(0, 12);
}

async function build(home: string, kernelPackage: string | undefined): Promise<void> {
  const draft = `${home}.${process.pid}`;
  mkdirSync(draft, { recursive: true });
  try {
    await script([draft, ...(kernelPackage === undefined ? [] : [kernelPackage])]);
    // Another process may have done the same: one is as good as the other.
    if (!existsSync(home)) renameSync(draft, home);
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}

/** Runs build.sh; what it says goes to standard error. */
function script(args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('bash', [join(sources, 'build.sh'), ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let last = '';
    child.stderr.on('data', (text) => {
      process.stderr.write(text);
      last = String(text).trim().split('\n').at(-1) ?? last;
    });
    child.once('error', reject);
    child.once('exit', (code) => {
      if (code === 0) resolve();
      else if (code === NO_PACKAGES) reject(new NoPackages(last));
      else reject(new Error(`guest/build.sh failed (${code}): ${last}`));
    });
  });
}
