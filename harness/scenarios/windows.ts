/**
 * A storage target and its initiator: b binds a memory window for a to write through, a invalidates
 * it with its last message, and b binds it again with the next key (iSER, NVMe over fabrics).
 *
 * Look for: the key of the region itself never leaves b. sendInv completes b's receive and takes the
 * key back at once; each write that follows waits for the next binding. A second window is read
 * through while b rebinds it by itself. "every byte verified" in both modes.
 */
import {
  host,
  memoryWindow,
  queuePair,
  read,
  rebind,
  region,
  repeat,
  scenario,
  sendInv,
  us,
  write,
} from 'faultline';

const a = host('a');
const b = host('b');
const access = ['local-write', 'remote-write', 'remote-read', 'mw-bind'] as const;
const commands = region(a, 'commands', '64KiB', { prefault: true });
const data = region(a, 'data', '1MiB', { prefault: true });
const copy = region(a, 'copy', '256KiB');
const received = region(b, 'received', '64KiB');
const buffer = region(b, 'buffer', '1MiB', { access: [...access] });
const store = region(b, 'store', '256KiB', { prefault: true, access: [...access] });

const io = queuePair('io', a, b);
const scan = queuePair('scan', a, b);
const target = memoryWindow('target', buffer, io, { access: ['remote-write'] });
const source = memoryWindow('source', store, scan, { access: ['remote-read'] });

export const windows = scenario('windows', 'Writes and reads through memory windows that change', [
  write(data, target, { size: '32KiB', count: 32, depth: 4 }),
  sendInv(commands, received, { invalidates: target, size: '1KiB', count: 16, solicited: true }),
  read(source, copy, { size: '16KiB', count: 64, depth: 4, on: scan }),
  ...repeat(4, (i) => rebind(source, { at: us(40 * (i + 1)) })),
]);
