/** GIDs as text that can be compared: 32 hexadecimal digits. */

/** The GID of an address of 4 or 16 bytes; an IPv4 address is mapped into IPv6. */
export function gidOfAddress(address: Uint8Array): string {
  const hex = Array.from(address, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return address.length === 4 ? `00000000000000000000ffff${hex}` : hex;
}
