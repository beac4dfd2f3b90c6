/**
 * The command `decode`: what a capture holds, one frame a line, and what each packet means to its
 * receiver.
 *
 * The file is gone through twice: once to find out which flows belong together, once to tell.
 */
import { type CapturedFrame, Failure, readCapture } from '../../transport/index.ts';
import { writeOut } from '../standard-output.ts';
import { readCaptureFile } from './capture-file.ts';
import { Follower } from './follower.ts';
import { FrameReader } from './frame-reader.ts';
import { type Decoded, isBad, renderLine, renderObject } from './render.ts';
import { Summary } from './summary.ts';
import { Survey } from './survey.ts';

export interface DecodeOptions {
  readonly json?: boolean;
  /** Whether a malformed packet or a wrong ICRC makes the exit status 1. */
  readonly strict?: boolean;
}

/**
 * Prints what is in the capture at `path` and returns the exit status. A capture that is damaged is
 * printed up to there; then its Failure is thrown.
 */
export async function decode(path: string, options: DecodeOptions): Promise<number> {
  const bytes = await readCaptureFile(path);
  const survey = surveyOf(bytes, path);
  const summary = new Summary();
  const { json = false } = options;
  let isClean = true;
  let isEmpty = true;
  let failure: unknown;
  if (json) await writeOut(`{ "file": ${JSON.stringify(path)}, "frames": [`);
  try {
    for (const decoded of decodedFrames(bytes, path, survey)) {
      summary.note(decoded.reading);
      isEmpty = false;
      isClean &&= !isBad(decoded.reading);
      const comma = decoded.number === 1 ? '' : ',';
      const text = json
        ? `${comma}\n${JSON.stringify(renderObject(decoded))}`
        : `${renderLine(decoded)}\n`;
      if (!(await writeOut(text))) return 0;
    }
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    failure = error;
  }
  if (failure !== undefined && isEmpty && !json) throw failure;
  await writeOut(
    json
      ? `\n], "summary": ${JSON.stringify(summary.toObject(survey.flows))} }\n`
      : summary.toText(survey.flows),
  );
  if (failure !== undefined) throw failure;
  return options.strict && !isClean ? 1 : 0;
}

/** Every frame of a capture with what it means. Throws the Failure of a damaged one where it is damaged. */
function* decodedFrames(bytes: Uint8Array, path: string, survey: Survey): Generator<Decoded> {
  const reader = new FrameReader(path);
  const follower = new Follower(survey);
  let first: CapturedFrame | undefined;
  for (const frame of readCapture(bytes, path)) {
    first ??= frame;
    const reading = reader.read(frame);
    yield {
      number: frame.number,
      timeNs: (frame.seconds - first.seconds) * 1e9 + (frame.nanoseconds - first.nanoseconds),
      bytes: frame.originalBytes,
      reading,
      meaning: reading.kind === 'packet' ? follower.follow(reading, frame.number) : '',
    };
  }
}

/** The flows of a capture, as far as it can be read. */
function surveyOf(bytes: Uint8Array, path: string): Survey {
  const survey = new Survey();
  const reader = new FrameReader(path);
  try {
    for (const frame of readCapture(bytes, path)) {
      const reading = reader.read(frame);
      if (reading.kind === 'packet') survey.note(reading, frame.number);
    }
  } catch (error) {
    // It is told in the second pass, behind the frames before it.
    if (!(error instanceof Failure)) throw error;
  }
  survey.finish();
  return survey;
}
