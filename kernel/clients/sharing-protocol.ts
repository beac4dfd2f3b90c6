/**
 * The messages by which a host shares pages of a segment with another one. Each is a row of 32-bit words:
 * kind, token, and what the kind says. The token of an answer is that of what it answers.
 */

/** Sharer to owner: [segment, write]. May I have access? (xpmem_get and xpmem_attach) */
export const MSG_ATTACH = 1;
/** Owner to sharer: [status, pageCount, rkey]; status 0, or the position of an errno in STATUS_ERRNO. */
export const MSG_ATTACHED = 2;
/** Sharer to owner: [first, count, write]. A fault on these pages; each is answered by itself. */
export const MSG_FAULT = 3;
/** Owner to sharer: [page, status, frame, write]. The page is yours, in that frame. */
export const MSG_GRANT = 4;
/** Owner to sharer: [first, count]. Stop using these pages, then acknowledge. */
export const MSG_RECALL = 5;
/** Sharer to owner: []. I use them no more. */
export const MSG_ACK = 6;

/** Errno of each status but 0. */
export const STATUS_ERRNO = ['', 'ENOENT', 'EACCES', 'EFAULT', 'ESRCH'] as const;
export const STATUS_ENOENT = 1;
export const STATUS_EACCES = 2;
export const STATUS_EFAULT = 3;
export const STATUS_ESRCH = 4;

/** How finely a segment is recalled from sharers on other hosts. */
export type RecallForm =
  /** One message for each page. */
  | 'page'
  /** One message for each run of up to RECALL_BATCH pages. */
  | 'batch'
  /** The whole segment at once, whatever was asked for (Lameter, seed 000: "take down the whole region"). */
  | 'region';

/** Pages of one message of the form 'batch': as many as a page table has entries. */
export const RECALL_BATCH = 512;
