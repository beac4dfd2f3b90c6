/** Capture files on disk. */
import { readFile, stat } from 'node:fs/promises';
import { Failure } from '../../transport/index.ts';

/** The bytes of a capture. Throws Failure E_CAPTURE_NOT_FOUND. */
export async function readCaptureFile(path: string): Promise<Uint8Array> {
  const missing = (what: string): Failure =>
    new Failure('E_CAPTURE_NOT_FOUND', what, path, 'a pcap or pcapng file that can be read');
  try {
    // Reading a pipe or a terminal could wait for ever.
    if (!(await stat(path)).isFile()) throw missing('it is not a file');
    return await readFile(path);
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw missing((error as NodeJS.ErrnoException).code ?? String(error));
  }
}
