#!/usr/bin/env python3
"""Checks the ICRC of every packet of captures, independently of faultline.

    icrc.py FILE...      pcap (little-endian) and pcapng; link types Ethernet and ERF (InfiniBand)

One line per file: packets with a right ICRC, with one that is right by the rule of rxe (a FLUSH whose
ICRC covers BTH to RETH twice), and wrong ones. Exit status 1 when any is wrong.
"""
import struct
import sys
import zlib

ETHERNET, ERF = 1, 197
FLUSH = 0x1C


def pcap(data):
    magic = struct.unpack_from("<I", data)[0]
    assert magic in (0xA1B2C3D4, 0xA1B23C4D), "a little-endian pcap"
    link = struct.unpack_from("<I", data, 20)[0] & 0xFFFF
    at = 24
    while at < len(data):
        length = struct.unpack_from("<I", data, at + 8)[0]
        yield link, data[at + 16 : at + 16 + length]
        at += 16 + length


def pcapng(data):
    order, links, at = "<", [], 0
    while at < len(data):
        kind = struct.unpack_from(order + "I", data, at)[0]
        if kind == 0x0A0D0D0A:
            order = "<" if data[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            links = []
        length = struct.unpack_from(order + "I", data, at + 4)[0]
        if kind == 1:
            links.append(struct.unpack_from(order + "H", data, at + 8)[0])
        elif kind == 6:
            interface, _, _, captured = struct.unpack_from(order + "IIII", data, at + 8)
            yield links[interface], data[at + 28 : at + 28 + captured]
        at += length


def roce(frame):
    """(carried, by the specification, by rxe's rule for FLUSH), or None for other frames"""
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    kind, ip = frame[at : at + 2], at + 2
    if kind == b"\x08\x00" and frame[ip + 9] == 17:
        udp = ip + (frame[ip] & 15) * 4
        end = ip + struct.unpack_from(">H", frame, ip + 2)[0]
        variant = [1, 8, 10, 11]
    elif kind == b"\x86\xdd" and frame[ip + 6] == 17:
        udp = ip + 40
        end = udp + struct.unpack_from(">H", frame, ip + 4)[0]
        variant = [1, 2, 3, 7]
    else:
        return None
    if struct.unpack_from(">H", frame, udp + 2)[0] != 4791:
        return None
    bth = udp + 8
    packet = bytearray(frame[ip : end - 4])
    for i in variant + [udp + 6 - ip, udp + 7 - ip, bth + 4 - ip]:
        packet[i] = 0xFF
    if kind == b"\x86\xdd":
        packet[0] |= 0x0F
    crc = zlib.crc32(b"\xff" * 8 + bytes(packet))
    twice = zlib.crc32(frame[bth : end - 4], crc) if frame[bth] == FLUSH else None
    return struct.unpack_from("<I", frame, end - 4)[0], crc, twice


def native(record):
    """the same of a native packet in an ERF record"""
    if record[8] != 21:
        return None
    lrh = 16
    end = lrh + (struct.unpack_from(">H", record, lrh + 4)[0] & 0x7FF) * 4
    packet = bytearray(record[lrh : end - 4])
    packet[0] |= 0xF0
    bth = 8
    if packet[1] & 3 == 3:
        packet[8] |= 0x0F
        packet[9:12] = b"\xff\xff\xff"
        packet[15] = 0xFF
        bth = 48
    packet[bth + 4] = 0xFF
    return struct.unpack_from("<I", record, end - 4)[0], zlib.crc32(bytes(packet)), None


def main(paths):
    failed = False
    for path in paths:
        with open(path, "rb") as file:
            data = file.read()
        right = by_rule = wrong = 0
        frames = pcapng(data) if data[:4] == b"\x0a\x0d\x0d\x0a" else pcap(data)
        for link, frame in frames:
            assert link in (ETHERNET, ERF), "link type %d" % link
            verdict = roce(frame) if link == ETHERNET else native(frame)
            if verdict is None:
                continue
            carried, crc, twice = verdict
            if carried == crc:
                right += 1
            elif carried == twice:
                by_rule += 1
            else:
                wrong += 1
        print("%s: %d right, %d right by rxe-flush-icrc, %d wrong" % (path, right, by_rule, wrong))
        failed = failed or wrong > 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
