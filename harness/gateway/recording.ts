/**
 * What came into a world from outside, as a file: a line of JSON for each input, with its time.
 *
 *     {"faultline":"arrivals","version":1,"scenario":"gateway","scenario_hash":"…","setup":{…}}
 *     {"t":1200345678,"frame":"AgAAAAAJUlQA…"}        base64 of an Ethernet frame
 *     {"t":1200999000,"client":1,"line":"{\"verb\":\"open\"}"}
 *     {"t":1300999000,"client":1,"gone":true}
 *     {"t":9000000000,"end":true}
 *
 * Times are picoseconds and only grow. A file without its end (the recorder was killed) ends with its
 * last line.
 */
import { createReadStream, createWriteStream, type WriteStream } from 'node:fs';
import { z } from 'zod';
import { Failure, type TimePs } from '../../transport/index.ts';
import { cannotWrite } from '../stats/output.ts';
import type { Arrival } from './arrivals.ts';
import { type GatewaySetup, setupSchema } from './setup.ts';

const VERSION = 1;

/** What a recording is of. */
export interface RecordingHead {
  readonly scenario: string;
  readonly scenarioHash: string;
  readonly setup: GatewaySetup;
}

/** The end of a recording. */
export interface RecordedEnd {
  readonly timePs: TimePs;
  readonly end: true;
}

const headSchema = z.strictObject({
  faultline: z.literal('arrivals'),
  version: z.literal(VERSION),
  scenario: z.string(),
  scenario_hash: z.string(),
  setup: setupSchema,
});

const t = z.int().min(1);
const client = z.int().min(1);
const inputSchema = z.union([
  z.strictObject({ t, frame: z.base64() }),
  z.strictObject({ t, client, line: z.string() }),
  z.strictObject({ t, client, gone: z.literal(true) }),
  z.strictObject({ t, end: z.literal(true) }),
]);

/** Writes a recording as it happens. */
export class Recorder {
  private problem: Failure | undefined;

  private constructor(
    private readonly stream: WriteStream,
    private readonly file: string,
  ) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      this.problem ??= cannotWrite(this.file, error);
    });
  }

  /** Begins a recording in `file`, which is replaced. @throws Failure E_OUTPUT */
  static async create(
    file: string,
    { scenario, scenarioHash, setup }: RecordingHead,
  ): Promise<Recorder> {
    const stream = createWriteStream(file);
    await new Promise<void>((resolve, reject) => {
      stream.once('open', () => resolve());
      stream.once('error', (error) => reject(cannotWrite(file, error)));
    });
    const recorder = new Recorder(stream, file);
    const head = { faultline: 'arrivals', version: VERSION, scenario };
    recorder.write({ ...head, scenario_hash: scenarioHash, setup });
    return recorder;
  }

  /** Keeps one input. @throws Failure E_OUTPUT when an earlier one could not be written */
  keep(arrival: Arrival): void {
    if (this.problem) throw this.problem;
    const { timePs, ...rest } = arrival;
    const content =
      'frame' in rest ? { frame: Buffer.from(rest.frame).toString('base64') } : { ...rest };
    this.write({ t: timePs, ...content });
  }

  /** Ends the recording at `timePs`, up to which the world has run. @throws Failure E_OUTPUT */
  async end(timePs: TimePs): Promise<void> {
    this.write({ t: timePs, end: true });
    await new Promise<void>((resolve) => {
      this.stream.once('close', resolve);
      this.stream.end();
    });
    if (this.problem) throw this.problem;
  }

  private write(line: object): void {
    this.stream.write(`${JSON.stringify(line)}\n`);
  }
}

/** A recording, read line by line. */
export class Recording {
  private constructor(
    readonly head: RecordingHead,
    private readonly file: string,
    private readonly lines: AsyncIterator<string, void>,
  ) {}

  /** Opens a recording. @throws Failure E_ARRIVALS_INVALID */
  static async open(file: string): Promise<Recording> {
    const iterator = linesOf(file);
    const first = await iterator.next();
    const data = parseJson(first.done ? '' : first.value, `${file}:1`);
    const parsed = headSchema.safeParse(data);
    if (!parsed.success)
      throw invalid(`${file}:1`, problemOf(parsed.error), 'the head of a recording');
    const { scenario, scenario_hash: scenarioHash, setup } = parsed.data;
    return new Recording({ scenario, scenarioHash, setup }, file, iterator);
  }

  /** The inputs in order, and the end if it has one. @throws Failure E_ARRIVALS_INVALID */
  async *inputs(): AsyncGenerator<Arrival | RecordedEnd> {
    let lastPs = 0;
    for (let number = 2; ; number++) {
      const next = await this.lines.next();
      if (next.done) return;
      const text = next.value;
      const place = `${this.file}:${number}`;
      const parsed = inputSchema.safeParse(parseJson(text, place));
      if (!parsed.success) throw invalid(place, problemOf(parsed.error), 'an input or the end');
      const { t: timePs, ...rest } = parsed.data;
      const isEnd = 'end' in rest;
      if (timePs <= lastPs && !(isEnd && timePs === lastPs)) {
        throw invalid(place, `time ${timePs} comes after ${lastPs}`, 'times that grow');
      }
      lastPs = timePs;
      if ('frame' in rest)
        yield { timePs, frame: new Uint8Array(Buffer.from(rest.frame, 'base64')) };
      else yield { timePs, ...rest };
      if (isEnd) return;
    }
  }
}

/** The lines of a file. @throws Failure E_ARRIVALS_INVALID */
async function* linesOf(file: string): AsyncGenerator<string, void> {
  let rest = '';
  try {
    for await (const chunk of createReadStream(file, 'utf8')) {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      yield* lines;
    }
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    throw invalid(file, `cannot be read: ${code}`, 'a recording');
  }
  if (rest !== '') yield rest;
}

function parseJson(text: string, place: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw invalid(place, (error as Error).message, 'JSON');
  }
}

function problemOf(error: z.ZodError): string {
  const [issue] = error.issues;
  const path = issue?.path.join('.') ?? '';
  return path === '' ? (issue?.message ?? '') : `${path}: ${issue?.message}`;
}

function invalid(place: string, message: string, expected: string): Failure {
  return new Failure('E_ARRIVALS_INVALID', message, place, expected);
}
