/**
 * Long output to standard output: at the pace of whoever reads it, and quietly over when the reader
 * has seen enough (`| head`).
 */
import { once } from 'node:events';
import { Failure } from '../transport/index.ts';

let problem: NodeJS.ErrnoException | undefined;
let isWatched = false;

/**
 * Writes `text`; false once nobody reads any more. Throws Failure E_OUTPUT where standard output
 * fails otherwise (a full disk).
 */
export async function writeOut(text: string): Promise<boolean> {
  if (!isWatched) {
    // For the rest of the process: an error may come after the last write.
    process.stdout.on('error', (error) => {
      problem ??= error;
    });
    isWatched = true;
  }
  if (problem === undefined && !process.stdout.write(text)) {
    // A stream that fails is closed and never drains.
    const drained = once(process.stdout, 'drain');
    await Promise.race([drained, once(process.stdout, 'close')]).catch(() => undefined);
  }
  if (problem === undefined) return true;
  if (problem.code === 'EPIPE') return false;
  const what = `cannot be written: ${problem.code ?? problem.message}`;
  throw new Failure('E_OUTPUT', what, 'standard output', 'somewhere to write to');
}
