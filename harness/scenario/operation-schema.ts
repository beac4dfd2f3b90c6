/**
 * The operations of a scenario as plain data: what is transferred, and how its work requests look.
 * What one field says about another, and about the rest of the scenario, is checked in `check-work.ts`.
 */
import { z } from 'zod';
import { integer, size, time, words64 } from './fields.ts';
import { quantityHelp } from './quantity.ts';

const kinds = [
  'write',
  'writeImm',
  'send',
  'sendImm',
  'sendInv',
  'read',
  'fetchAdd',
  'compareSwap',
  'atomicWrite',
] as const;

export type OperationKind = (typeof kinds)[number];

/** Kinds whose data are the eight bytes of a word. */
const WORD_KINDS: readonly OperationKind[] = ['fetchAdd', 'compareSwap', 'atomicWrite'];
const WORD_BYTES = 8;
/** What the area for the GRH takes of each receive of a datagram. */
export const GRH_BYTES = 40;

const place = z
  .strictObject({
    region: z.string(),
    offset: size().default(0),
    /** The window of the region that gives the right to use it; its own key when left out. */
    window: z.string().optional(),
  })
  .transform(({ region, offset, window }) => ({
    region,
    offsetBytes: offset,
    window: window ?? null,
  }));

export const operationSchema = z
  .strictObject({
    kind: z.enum(kinds),
    /** The host that posts the work requests. */
    from: z.string(),
    queuePair: z.string(),
    /**
     * Where the bytes come from: a region of `from`, for a read one of the other host. For fetchAdd
     * and compareSwap the region of `from` into which the original values go.
     */
    source: place,
    target: place,
    /** Left out where the data are a word of eight bytes. */
    size: size().optional(),
    count: integer(1, 10_000_000).default(1),
    /** Work requests outstanding at once. */
    depth: integer(1, 1024).default(1),
    /**
     * Distance from one operation's range to the next; both wrap at the end of their region. The size
     * when left out, but 0 for fetchAdd and compareSwap, which then work on one word. Their results
     * stand side by side in any case, and receives of datagrams are further apart by GRH_BYTES.
     */
    stride: size().optional(),
    /** The program writes new bytes into the source before each operation; perftest does not. */
    refill: z.boolean().default(true),
    /** When the first is posted, counted from the start of traffic. */
    at: time().default(0),
    /** What fetchAdd adds. */
    add: words64.default([0, 1]),
    /** What compareSwap compares with, and puts there. */
    compare: words64.default([0, 0]),
    swap: words64.default([0, 1]),
    /** IBV_SEND_FENCE, IBV_SEND_SOLICITED, IBV_SEND_INLINE. */
    fence: z.boolean().default(false),
    solicited: z.boolean().default(false),
    inline: z.boolean().default(false),
    /** Every so many work requests one is signalled (and the last); at most the depth. */
    signalEvery: integer(1, 1024).default(1),
    /** Scatter/gather entries of a work request, and of the receive it goes into. */
    sges: integer(1, 16).default(1),
    receiveSges: integer(1, 16).default(1),
    /** A FLUSH of the same range follows each write. */
    flush: z.enum(['global', 'persistent']).optional(),
    /** The window that each sendInv invalidates at the peer, which binds it again. */
    invalidates: z.string().optional(),
  })
  .superRefine(({ kind, size }, context) => {
    if (size !== undefined || WORD_KINDS.includes(kind)) return;
    context.addIssue({
      code: 'custom',
      path: ['size'],
      message: `nothing is not ${quantityHelp.size.split(',')[0]}`,
      params: { expected: quantityHelp.size },
    });
  })
  .transform(({ size, stride, at, flush, invalidates, ...rest }) => {
    const sizeBytes = size ?? WORD_BYTES;
    return {
      ...rest,
      sizeBytes,
      strideBytes: stride ?? (isAtomic(rest.kind) ? 0 : sizeBytes),
      atPs: at,
      flush: flush ?? null,
      invalidates: invalidates ?? null,
    };
  });

export type OperationSpec = z.output<typeof operationSchema>;

/** True for kinds that change a word at the target and bring back what stood there. */
export function isAtomic(kind: OperationKind): boolean {
  return kind === 'fetchAdd' || kind === 'compareSwap';
}

/** True for kinds whose data are one word. */
export function isOnWord(kind: OperationKind): boolean {
  return WORD_KINDS.includes(kind);
}

/** True for kinds that go into a receive of the target. */
export function isSend(kind: OperationKind): boolean {
  return kind === 'send' || kind === 'sendImm' || kind === 'sendInv';
}

/** True for kinds that consume a receive. */
export function consumesReceive(kind: OperationKind): boolean {
  return isSend(kind) || kind === 'writeImm';
}
