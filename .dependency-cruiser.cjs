// The import rule. A file imports from its own folder and from folders to its left, and across
// folders only through that folder's index.ts. Tests may reach inside and use any package.
const folders = ['transport', 'hca', 'kernel', 'harness', 'test'];
const transportLayers = ['sim', 'wire', 'capture', 'fabric', 'channel'];

// Third-party packages below harness/, and the only places that may name the restricted ones.
const homes = {
  ws: '^(transport/channel|harness/bench)/',
  msgpackr: '^transport/(wire/session\\.ts$|channel/)',
  zod: '^(transport|harness)/',
  rxjs: '^(kernel|harness)/',
};

const npmPackage = (name) => `node_modules/(@types/)?${name}/`;

/** Forbids every place in `order` from importing what stands to its right. */
const leftward = (order, prefix) =>
  order.slice(0, -1).map((name, i) => ({
    name: `${prefix}${name}-imports-leftward`,
    severity: 'error',
    from: { path: `^${prefix}${name}/` },
    to: { path: `^${prefix}(${order.slice(i + 1).join('|')})/` },
  }));

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    ...leftward(folders, ''),
    ...leftward(transportLayers, 'transport/'),
    {
      name: 'through-the-index',
      comment: 'Another folder is imported only through its index.ts.',
      severity: 'error',
      from: { path: '^(transport|hca|kernel|harness)/' },
      to: { path: `^(${folders.join('|')})/`, pathNot: ['^$1/', '^[^/]+/index\\.ts$'] },
    },
    {
      name: 'no-circular',
      comment: 'Types may refer to each other: docs/decisions/0009-type-only-cycles.md.',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    ...Object.entries(homes).map(([name, home]) => ({
      name: `${name}-stays-home`,
      severity: 'error',
      from: { path: '^(transport|hca|kernel|harness)/', pathNot: home },
      to: { path: npmPackage(name) },
    })),
    {
      name: 'no-other-packages',
      comment: 'Below harness/ there are no third-party packages but those listed above.',
      severity: 'error',
      from: { path: '^(transport|hca|kernel)/' },
      to: { path: 'node_modules/', pathNot: Object.keys(homes).map(npmPackage) },
    },
    {
      name: 'no-builtins-in-the-model',
      comment: 'The simulated world has no clock, file or socket of its own.',
      severity: 'error',
      from: {
        path: '^(transport|hca|kernel)/',
        pathNot: ['^transport/wire/icrc\\.ts$', '^transport/channel/'],
      },
      to: { dependencyTypes: ['core'] },
    },
    {
      name: 'resolvable',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
  ],
  options: {
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true, // type-only imports obey the rule too
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node'] },
  },
};
