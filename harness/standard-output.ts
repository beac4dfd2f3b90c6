/**
 * Long output to standard output: at the pace of whoever reads it, and quietly over when the reader
 * has seen enough (`| head`).
 */
import { once } from 'node:events';

export class StandardOutput {
  private isOpen = true;
  private readonly onError = (error: NodeJS.ErrnoException): void => {
    this.isOpen = false;
    if (error.code !== 'EPIPE') throw error;
  };

  constructor() {
    process.stdout.on('error', this.onError);
  }

  /** Writes `text`; false once nobody reads any more. */
  async write(text: string): Promise<boolean> {
    if (!this.isOpen) return false;
    if (!process.stdout.write(text)) {
      // A reader that is gone ends the stream instead of draining it.
      await Promise.race([once(process.stdout, 'drain'), once(process.stdout, 'close')]).catch(
        () => undefined,
      );
    }
    return this.isOpen;
  }
}
