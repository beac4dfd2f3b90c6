/**
 * `faultline conform`: captured conversations replayed against our adapter, file by file.
 *
 * Owns the result of a file and how it is shown. How a capture is replayed is `replay.ts`'s.
 */
import { Failure } from '../../transport/index.ts';
import { writeOut } from '../standard-output.ts';
import { loadCapture } from './capture.ts';
import { captureFiles, textOf } from './files.ts';
import type { Departure } from './findings.ts';
import { renderResults } from './render.ts';
import { replay } from './replay.ts';

export interface ConformOptions {
  readonly json?: boolean;
}

/** What is found of one capture. */
export interface ConformResult {
  readonly file: string;
  /** RoCEv2 frames in it. */
  readonly frames: number;
  /** Of those: sent by ours as captured, or taken by ours and answered for. */
  readonly compared: number;
  readonly conforms: boolean;
  /** Which rule excused a difference at which frame. */
  readonly departures: readonly Departure[];
  /** Why it does not conform, or, with the code of an error, why that cannot be said; else empty. */
  readonly reason: string;
}

/** Exit status where a capture does not conform, and where one cannot be judged. */
const DIFFERS = 1;
const UNREADABLE = 2;

/** Replays every capture that `paths` stand for and shows the results; returns the exit status. */
export async function conform(paths: readonly string[], { json }: ConformOptions): Promise<number> {
  const results: ConformResult[] = [];
  let status = 0;
  for (const file of await captureFiles(paths)) {
    const { result, isReadable } = await conformFile(file);
    results.push(result);
    status = Math.max(status, isReadable ? (result.conforms ? 0 : DIFFERS) : UNREADABLE);
  }
  const text = json ? JSON.stringify(results, null, 2) : renderResults(results);
  await writeOut(`${text}\n`);
  return status;
}

/** The result of one capture; it is not readable where the file or its set-up is at fault. */
export async function conformFile(
  file: string,
): Promise<{ readonly result: ConformResult; readonly isReadable: boolean }> {
  let frames = 0;
  try {
    const capture = await loadCapture(file);
    frames = capture.packets.length + capture.problems.filter(({ isRead }) => !isRead).length;
    if (frames === 0) {
      const what = `none of its ${capture.others.length} frames is RoCEv2`;
      throw new Failure('E_NO_FRAMES', what, file, 'frames to UDP port 4791');
    }
    const { findings, differences } = replay(capture, await textOf(file));
    return {
      result: {
        file,
        frames,
        compared: findings.compared.size,
        conforms: differences.length === 0,
        departures: findings.departures.toSorted((a, b) => a.frame - b.frame),
        reason: differences.join('; '),
      },
      isReadable: true,
    };
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    const reason = error.describe().replaceAll('\n', ' ');
    return {
      result: { file, frames, compared: 0, conforms: false, departures: [], reason },
      isReadable: false,
    };
  }
}
