/**
 * The Ethernet and IP addresses of a simulated port in a capture. Inside the world a port is a LID;
 * these stand for it where frames are written.
 */

/** `02:00:00:00:HH:LL`, locally administered. */
export function macOfLid(lid: number): readonly number[] {
  return [2, 0, 0, 0, lid >>> 8, lid & 0xff];
}

/** `192.0.2.LL` (TEST-NET-1, RFC 5737). */
export function ipOfLid(lid: number): readonly number[] {
  return [192, 0, 2, lid & 0xff];
}
