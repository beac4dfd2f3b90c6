/**
 * The folder that results go to. Files appear complete or not at all: each is written under another
 * name first and then renamed.
 */
import { access, constants, mkdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { Failure } from '../../transport/index.ts';

/** Makes the folder if need be and checks that it can be written to. Throws Failure E_OUTPUT. */
export async function prepareOutput(folder: string): Promise<void> {
  try {
    await makeFolder(resolve(folder));
    await access(folder, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw cannotWrite(folder, error);
  }
}

/** Level by level, because Node's own recursive mkdir never returns below /proc. */
async function makeFolder(folder: string): Promise<void> {
  const kind = await stat(folder).catch(() => undefined);
  if (kind?.isDirectory()) return;
  const parent = dirname(folder);
  if (kind === undefined && parent !== folder) await makeFolder(parent);
  await mkdir(folder);
}

/** Writes `files` (name -> text) into `folder`. Throws Failure E_OUTPUT. */
export async function writeOutput(
  folder: string,
  files: Readonly<Record<string, string>>,
): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    const file = join(folder, name);
    const unfinished = `${file}.${process.pid}.tmp`;
    try {
      await writeFile(unfinished, text);
      await rename(unfinished, file);
    } catch (error) {
      await rm(unfinished, { force: true }).catch(() => undefined);
      throw cannotWrite(file, error);
    }
  }
}

/** What there is to say about a file or folder that cannot be written. */
export function cannotWrite(path: string, error: unknown): Failure {
  const code = (error as NodeJS.ErrnoException).code ?? String(error);
  return new Failure(
    'E_OUTPUT',
    `cannot be written: ${code}`,
    resolve(path),
    'a folder to write to',
  );
}
