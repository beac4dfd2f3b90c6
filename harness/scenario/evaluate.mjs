// The worker thread in which scenario scripts run, so that one that throws, prints or never ends
// cannot harm the program. Receives paths, answers with what each exports (`Evaluation` in load.ts).
// Plain JavaScript, because what translates TypeScript has to be set up first, here.

import { register } from 'node:module';
import { pathToFileURL } from 'node:url';
import { parentPort, workerData } from 'node:worker_threads';
import { register as registerTypeScript } from 'tsx/esm/api';

registerTypeScript();
register('./resolve-hook.mjs', import.meta.url);

const evaluations = [];
for (const file of workerData) evaluations.push(await evaluate(file));
parentPort.postMessage(evaluations);

async function evaluate(file) {
  try {
    const values = new Set(Object.values(await import(pathToFileURL(file).href)));
    const scenarios = [...values].filter(looksLikeScenario).map((value) => JSON.stringify(value));
    return { file, scenarios };
  } catch (error) {
    const { message, stack } = error instanceof Error ? error : new Error(String(error));
    const place = `${stack}\n${message}`.split(`${file}:`)[1] ?? '';
    const lines = message.split('\n');
    // A syntax error has its reason at the end, anything else at the start.
    const reason = lines[0].startsWith('Transform failed') ? lines.at(-1) : lines[0];
    const problem = reason.replace(/^.*:\d+:\d+: /, '');
    return { file, problem, line: Number.parseInt(place, 10) || 0 };
  }
}

function looksLikeScenario(value) {
  return typeof value === 'object' && value !== null && 'name' in value && 'hosts' in value;
}
