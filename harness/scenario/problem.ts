/** How problems of a scenario are said: Failure E_SCENARIO_INVALID with the path of the field. */
import { Failure } from '../../transport/index.ts';

/** Names listed in a message before it only says how many more there are. */
const LISTED = 12;

export function invalid(place: string, message: string, expected = ''): Failure {
  return new Failure('E_SCENARIO_INVALID', message, place, expected);
}

/** The things of one kind in a scenario, by name. */
export class Named<T extends { readonly name: string }> {
  readonly names: readonly string[];
  private readonly byName = new Map<string, T>();

  /** `path` is their place in the scenario, `what` one of them. Throws when a name comes twice. */
  constructor(
    readonly items: readonly T[],
    path: string,
    private readonly what: string,
  ) {
    this.names = items.map(({ name }) => name);
    const places = new Map<string, number>();
    items.forEach((item, i) => {
      const first = places.get(item.name);
      if (first !== undefined) {
        const message = `'${item.name}' is already ${path}[${first}]`;
        throw invalid(`${path}[${i}].name`, message, 'a new name');
      }
      places.set(item.name, i);
      this.byName.set(item.name, item);
    });
  }

  /** The thing called `name`; throws with the place that named it when there is none. */
  get(name: string, place: string): T {
    const item = this.byName.get(name);
    if (item === undefined) throw unknown(name, this.names, place, this.what);
    return item;
  }
}

/** Throws unless `name` is one of `known`. */
export function oneOf(name: string, known: readonly string[], path: string, what: string): void {
  if (!known.includes(name)) throw unknown(name, known, path, what);
}

function unknown(name: string, known: readonly string[], path: string, what: string): Failure {
  const more = known.length - LISTED;
  const list = known.slice(0, LISTED).join(', ') + (more > 0 ? ` and ${more} more` : '');
  return invalid(path, `there is no ${what} '${name}'`, list || `a declared ${what}`);
}
