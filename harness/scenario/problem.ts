/** How problems of a scenario are said: Failure E_SCENARIO_INVALID with the path of the field. */
import { Failure } from '../../transport/index.ts';

export function invalid(place: string, message: string, expected = ''): Failure {
  return new Failure('E_SCENARIO_INVALID', message, place, expected);
}

/** Throws unless every name is new. */
export function unique(items: readonly { name: string }[], path: string): void {
  items.forEach(({ name }, i) => {
    const first = items.findIndex((item) => item.name === name);
    if (first < i)
      throw invalid(`${path}[${i}].name`, `'${name}' is already ${path}[${first}]`, 'a new name');
  });
}

/** Throws unless `name` is one of `known`. */
export function oneOf(name: string, known: readonly string[], path: string, what: string): void {
  if (!known.includes(name)) throw unknown(name, known, path, what);
}

export function unknown(
  name: string,
  known: readonly string[],
  path: string,
  what: string,
): Failure {
  return invalid(path, `there is no ${what} '${name}'`, known.join(', ') || `a declared ${what}`);
}

export function namesOf(items: readonly { name: string }[]): string[] {
  return items.map(({ name }) => name);
}
