/**
 * Ethernet frames with an IPv4 or IPv6 packet inside: what stands in front of the IP payload, read
 * and written so that every frame that was read can be written again byte for byte.
 *
 * Owns Ethernet (802.1Q tags, padding or FCS behind the packet), IPv4 with options, and the fixed
 * header of IPv6. Does not own what the payload is.
 */
import { checksumAdd, checksumEnd, formatIpv4, formatIpv6 } from './addresses.ts';
import { get16, get32, put16, put32 } from './big-endian.ts';
import { PACKET_BAD_LENGTH, PACKET_FOREIGN, PACKET_TRUNCATED } from './packet.ts';

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
const ETHERTYPE_VLAN = 0x8100;
const ETHERTYPE_SERVICE_VLAN = 0x88a8;
export const ETHERTYPE_IPV6 = 0x86dd;
export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const PROTOCOL_ICMPV6 = 58;
export const ETHERNET_BYTES = 14;
export const IPV4_BYTES = 20;
export const IPV6_BYTES = 40;
/** "Don't fragment" of IPv4, and what makes a packet a fragment: "more fragments", an offset. */
const IPV4_DONT_FRAGMENT = 0x4000;
const IPV4_FRAGMENT = 0x3fff;
/** What may stand behind an IP packet in its frame: padding to 60 bytes, and an FCS. */
const TRAILER_MAX_BYTES = 64;

/** The headers of one frame. One object serves any number of frames, one after the other. */
export class IpFrame {
  /** False where the IP header comes first (link type RAW). */
  hasEthernet = true;
  readonly destMac = new Uint8Array(6);
  readonly sourceMac = new Uint8Array(6);
  /** 802.1Q tags as they stand, type and TCI: 0, 4 or 8 bytes. */
  readonly tags = new Uint8Array(8);
  tagBytes = 0;
  etherType = ETHERTYPE_IPV4;
  /** 4 or 6; 0 where the frame holds something else. */
  version = 4;
  /** Addresses: the first 4 bytes, or all 16. */
  readonly source = new Uint8Array(16);
  readonly dest = new Uint8Array(16);
  /** Type of service of IPv4: DSCP and ECN. */
  trafficClass = 0;
  /** Of IPv6. */
  flowLabel = 0;
  /** Time to live of IPv4. */
  hopLimit = 64;
  /** Of IPv4, as is what follows. */
  identification = 0;
  /** Flags and fragment offset. */
  fragment = IPV4_DONT_FRAGMENT;
  readonly options = new Uint8Array(40);
  optionBytes = 0;
  /** The header checksum that came, exclusive or the right one; 0: right. Hosts drop what has none. */
  checksumError = 0;
  /** IP protocol, or next header of IPv6. */
  protocol = PROTOCOL_UDP;
  /** What stands behind the IP packet. */
  readonly trailer = new Uint8Array(TRAILER_MAX_BYTES);
  trailerBytes = 0;
  // Where the parts of a frame that was read stand.
  ipAt = 0;
  payloadAt = 0;
  payloadEnd = 0;

  /** Bytes from the start of the frame to the IP payload. */
  get headBytes(): number {
    const ethernet = this.hasEthernet ? ETHERNET_BYTES + this.tagBytes : 0;
    return ethernet + (this.version === 6 ? IPV6_BYTES : IPV4_BYTES + this.optionBytes);
  }

  get isFragment(): boolean {
    return this.version === 4 && (this.fragment & IPV4_FRAGMENT) !== 0;
  }

  /** The source and destination addresses as text. */
  get sourceText(): string {
    return this.version === 6 ? formatIpv6(this.source) : formatIpv4(this.source);
  }

  get destText(): string {
    return this.version === 6 ? formatIpv6(this.dest) : formatIpv4(this.dest);
  }

  /**
   * Reads the headers of the frame in `bytes` from `at` to `end`; `hasEthernet` says how it starts.
   * Returns 0 or a PACKET_* problem. With PACKET_FOREIGN the Ethernet fields are set and version is 0.
   */
  read(bytes: Uint8Array, at: number, end: number): number {
    this.tagBytes = 0;
    this.version = 0;
    let ip = at;
    if (this.hasEthernet) {
      if (end - at < ETHERNET_BYTES) return PACKET_TRUNCATED;
      this.destMac.set(bytes.subarray(at, at + 6));
      this.sourceMac.set(bytes.subarray(at + 6, at + 12));
      ip = at + 12;
      while (isTag(get16(bytes, ip)) && this.tagBytes < 8) {
        if (end - ip < 6) return PACKET_TRUNCATED;
        this.tags.set(bytes.subarray(ip, ip + 4), this.tagBytes);
        this.tagBytes += 4;
        ip += 4;
      }
      this.etherType = get16(bytes, ip);
      ip += 2;
    } else if (end > at) {
      this.etherType = bytes[at] >>> 4 === 6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4;
    }
    this.ipAt = ip;
    if (this.etherType === ETHERTYPE_IPV4) return this.readIpv4(bytes, ip, end);
    if (this.etherType === ETHERTYPE_IPV6) return this.readIpv6(bytes, ip, end);
    return PACKET_FOREIGN;
  }

  /** Writes the headers of a frame with `payloadBytes` of IP payload; returns where that starts. */
  write(payloadBytes: number, out: Uint8Array, at: number): number {
    let ip = at;
    if (this.hasEthernet) {
      out.set(this.destMac, at);
      out.set(this.sourceMac, at + 6);
      ip = at + 12;
      for (let i = 0; i < this.tagBytes; i++) out[ip++] = this.tags[i];
      put16(out, ip, this.version === 6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4);
      ip += 2;
    }
    return this.version === 6
      ? this.writeIpv6(payloadBytes, out, ip)
      : this.writeIpv4(payloadBytes, out, ip);
  }

  /** Writes what stood behind the IP packet; returns its end. */
  writeTrailer(out: Uint8Array, at: number): number {
    for (let i = 0; i < this.trailerBytes; i++) out[at + i] = this.trailer[i];
    return at + this.trailerBytes;
  }

  /**
   * The sum over the pseudo header that TCP, UDP and ICMPv6 checksums start with, for a payload of
   * `payloadBytes` (`checksumAdd` goes on with it).
   */
  pseudoSum(payloadBytes: number): number {
    const length = this.version === 6 ? 16 : 4;
    const sum = checksumAdd(this.source, 0, length, this.protocol + payloadBytes);
    return checksumAdd(this.dest, 0, length, sum);
  }

  private readIpv4(bytes: Uint8Array, ip: number, end: number): number {
    if (end - ip < IPV4_BYTES) return PACKET_TRUNCATED;
    const headerBytes = (bytes[ip] & 0xf) * 4;
    const totalBytes = get16(bytes, ip + 2);
    if (bytes[ip] >>> 4 !== 4 || headerBytes < IPV4_BYTES) return PACKET_BAD_LENGTH;
    if (totalBytes < headerBytes) return PACKET_BAD_LENGTH;
    this.version = 4;
    this.optionBytes = headerBytes - IPV4_BYTES;
    this.trafficClass = bytes[ip + 1];
    this.identification = get16(bytes, ip + 4);
    this.fragment = get16(bytes, ip + 6);
    this.hopLimit = bytes[ip + 8];
    this.protocol = bytes[ip + 9];
    this.source.set(bytes.subarray(ip + 12, ip + 16));
    this.dest.set(bytes.subarray(ip + 16, ip + 20));
    if (end - ip < totalBytes) return PACKET_TRUNCATED;
    this.options.set(bytes.subarray(ip + IPV4_BYTES, ip + headerBytes));
    const carried = get16(bytes, ip + 10);
    this.checksumError = carried ^ headerChecksum(bytes, ip, headerBytes);
    return this.readRest(bytes, ip + headerBytes, ip + totalBytes, end);
  }

  private readIpv6(bytes: Uint8Array, ip: number, end: number): number {
    if (end - ip < IPV6_BYTES) return PACKET_TRUNCATED;
    if (bytes[ip] >>> 4 !== 6) return PACKET_BAD_LENGTH;
    this.version = 6;
    const first = get32(bytes, ip);
    this.trafficClass = (first >>> 20) & 0xff;
    this.flowLabel = first & 0xfffff;
    this.protocol = bytes[ip + 6];
    this.hopLimit = bytes[ip + 7];
    this.source.set(bytes.subarray(ip + 8, ip + 24));
    this.dest.set(bytes.subarray(ip + 24, ip + 40));
    const payloadBytes = get16(bytes, ip + 4);
    const payload = ip + IPV6_BYTES;
    if (end - payload < payloadBytes) return PACKET_TRUNCATED;
    return this.readRest(bytes, payload, payload + payloadBytes, end);
  }

  private readRest(bytes: Uint8Array, payload: number, payloadEnd: number, end: number): number {
    this.payloadAt = payload;
    this.payloadEnd = payloadEnd;
    this.trailerBytes = end - payloadEnd;
    if (this.trailerBytes > TRAILER_MAX_BYTES) return PACKET_BAD_LENGTH;
    this.trailer.set(bytes.subarray(payloadEnd, end));
    return 0;
  }

  private writeIpv4(payloadBytes: number, out: Uint8Array, ip: number): number {
    const headerBytes = IPV4_BYTES + this.optionBytes;
    out[ip] = 0x40 | (headerBytes >>> 2);
    out[ip + 1] = this.trafficClass;
    put16(out, ip + 2, headerBytes + payloadBytes);
    put16(out, ip + 4, this.identification);
    put16(out, ip + 6, this.fragment);
    out[ip + 8] = this.hopLimit;
    out[ip + 9] = this.protocol;
    for (let i = 0; i < 4; i++) {
      out[ip + 12 + i] = this.source[i];
      out[ip + 16 + i] = this.dest[i];
    }
    for (let i = 0; i < this.optionBytes; i++) out[ip + IPV4_BYTES + i] = this.options[i];
    put16(out, ip + 10, headerChecksum(out, ip, headerBytes) ^ this.checksumError);
    return ip + headerBytes;
  }

  private writeIpv6(payloadBytes: number, out: Uint8Array, ip: number): number {
    put32(out, ip, 0x60000000 | (this.trafficClass << 20) | this.flowLabel);
    put16(out, ip + 4, payloadBytes);
    out[ip + 6] = this.protocol;
    out[ip + 7] = this.hopLimit;
    out.set(this.source, ip + 8);
    out.set(this.dest, ip + 24);
    return ip + IPV6_BYTES;
  }
}

function isTag(type: number): boolean {
  return type === ETHERTYPE_VLAN || type === ETHERTYPE_SERVICE_VLAN;
}

/** The right checksum of the IPv4 header at `ip`, whatever stands in its place. */
function headerChecksum(bytes: Uint8Array, ip: number, headerBytes: number): number {
  const sum = checksumAdd(bytes, ip, ip + 10);
  return checksumEnd(checksumAdd(bytes, ip + 12, ip + headerBytes, sum));
}
