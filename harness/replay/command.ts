/**
 * `faultline replay`: a recorded MPI run through memory, a registration scheme and the adapter.
 */
import { Failure } from '../../transport/index.ts';
import type { RunHooks } from '../run.ts';
import { writeOut } from '../standard-output.ts';
import { readRecording } from './recording.ts';
import { renderReplay } from './render.ts';
import { replayRecording } from './replay.ts';
import type { SchemeName } from './scheme.ts';

export interface ReplayCommandOptions {
  readonly ranks?: readonly number[];
  readonly scheme: SchemeName;
  readonly seed: number;
  readonly json?: boolean;
}

/** Replays `run`, a name or a folder, and prints what came of it. Throws Failure. */
export async function replayCommand(
  run: string,
  { ranks, scheme, seed, json }: ReplayCommandOptions,
  hooks: RunHooks,
): Promise<number> {
  const recording = readRecording(run, ranks);
  const result = await replayRecording({ recording, scheme, seed, ...hooks });
  await writeOut(json ? `${JSON.stringify(result, null, 2)}\n` : `${renderReplay(result)}\n`);
  for (const { rank, maps_equal, residency, file_residency } of result.ranks) {
    const strange = residency.unattributed + file_residency.unattributed;
    if (maps_equal && strange === 0) continue;
    const what = maps_equal ? `${strange} pages have no cause` : 'its mappings are others';
    throw new Failure(
      'E_REPLAY_DIFFERS',
      `rank ${rank} does not end as recorded: ${what}`,
      result.run,
      'the recorded mappings, and a cause for every page that differs',
    );
  }
  return 0;
}
