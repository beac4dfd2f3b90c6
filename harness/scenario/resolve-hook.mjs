// Lets a scenario script anywhere on disk import 'faultline', the scripting API of this installation,
// and makes it a module even where no package.json says so.
// Plain JavaScript, because module hooks run in a thread of their own where nothing translates types.

const api = new URL('../index.ts', import.meta.url).href;

export async function resolve(specifier, context, next) {
  const resolved = await next(specifier === 'faultline' ? api : specifier, context);
  const isScript = /^file:.*\.ts(\?|$)/.test(resolved.url);
  return isScript ? { ...resolved, format: 'module' } : resolved;
}
