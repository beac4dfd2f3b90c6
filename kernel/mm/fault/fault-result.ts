/**
 * What a fault answers in place of a frame (vm_fault_t).
 */

/** It has to sleep first. */
export const MUST_SLEEP = -1;
/** There is no page: beyond the end of a file, or no huge page is left (VM_FAULT_SIGBUS). */
export const NO_PAGE = -2;
