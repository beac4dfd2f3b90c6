/**
 * Progress on standard error: a bar on a terminal, a plain line every few seconds elsewhere.
 */
import { SingleBar } from 'cli-progress';
import { NS } from '../transport/index.ts';
import type { RunProgress } from './run.ts';
import { formatCount, formatNs } from './stats/format.ts';

const LINE_EVERY_MS = 3_000;

export interface ProgressDisplay {
  update(progress: RunProgress): void;
  /** Leaves the terminal as it was. */
  stop(): void;
}

/** Shows the progress of what `label` names. */
export function showProgress(label: string): ProgressDisplay {
  return process.stderr.isTTY ? new Bar(label) : new Lines(label);
}

class Bar implements ProgressDisplay {
  private readonly bar: SingleBar;
  private isStarted = false;

  constructor(label: string) {
    this.bar = new SingleBar({
      format: `${label} {bar} {done} of {planned} operations, {simulated} simulated`,
      hideCursor: true,
      clearOnComplete: true,
      fps: 10,
      stream: process.stderr,
    });
  }

  update({ simulatedPs, done, planned }: RunProgress): void {
    const payload = {
      done: formatCount(done),
      planned: formatCount(planned),
      simulated: formatNs(Math.max(0, simulatedPs) / NS),
    };
    if (this.isStarted) this.bar.update(done, payload);
    else {
      this.isStarted = true;
      this.bar.start(planned, done, payload);
    }
  }

  stop(): void {
    if (this.isStarted) this.bar.stop();
  }
}

class Lines implements ProgressDisplay {
  private lastMs = performance.now();

  constructor(private readonly label: string) {}

  update({ simulatedPs, done, planned }: RunProgress): void {
    const nowMs = performance.now();
    if (nowMs - this.lastMs < LINE_EVERY_MS) return;
    this.lastMs = nowMs;
    const simulated = formatNs(Math.max(0, simulatedPs) / NS);
    process.stderr.write(
      `${this.label}: ${formatCount(done)} of ${formatCount(planned)} operations, ${simulated} simulated\n`,
    );
  }

  stop(): void {}
}
