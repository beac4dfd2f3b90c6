/** The program: runs the command line of this process. */
import { runCommandLine } from './command-line.ts';

// The exit status is set, not forced, so that what was written to pipes arrives.
process.exitCode = await runCommandLine(process.argv.slice(2));
// The channel to a coordinator would hold the process open.
if (process.connected) process.disconnect();
