/** Memory of ours against what check and dump commands found. */
import { bytesOfHex, type Program, pattern } from './program.ts';
import { type CommandText, Words } from './rcpeer-text.ts';
import { type Rule, rules } from './rxe-profile.ts';

/** How memory differs from what the command found: not at all, by a rule, or as the text returned says. */
export function checkMemory(
  { name, words, answers, place }: CommandText,
  program: Program,
): Rule | string | undefined {
  const ours = program.memory.read(words);
  const answer = answers[0] ?? '';
  if (ours === undefined || answer.startsWith('ERR range')) return undefined;
  let problem: string | undefined;
  if (name === 'dump') {
    const theirs = bytesOfHex(answer.slice('DUMP '.length));
    const at = theirs.findIndex((byte, i) => byte !== ours[i]);
    if (at >= 0) problem = `byte ${at} is ${theirs[at]} there, ${ours[at]} here`;
  } else {
    const wanted = pattern(words.number('seed'), ours.length);
    const at = ours.findIndex((byte, i) => byte !== wanted[i]);
    const said = new Words(answer, place);
    const atThere = answer.startsWith('CHECK ok') ? -1 : said.number('at');
    const isSame = at === atThere && (at < 0 || ours[at] === Number(`0x${said.text('got')}`));
    if (!isSame)
      problem = `'${answer}' there, ${at < 0 ? 'right' : `wrong from byte ${at} on`} here`;
  }
  if (problem === undefined) return undefined;
  if (program.memory.isOnDemand(words)) return rules.ON_DEMAND_OFFSET;
  return `${place}: ${name}: ${problem}`;
}
