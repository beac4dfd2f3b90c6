/**
 * A program that is not known, as far as the capture shows what it did: its memory and its receives.
 *
 * Bytes that a READ or an atomic found, and that nobody had written over the wire before, the tool
 * itself had put there. A message that was taken found a receive, and what it brought is what the
 * receive then holds.
 */

import { psnDistance } from '../../hca/index.ts';
import {
  HDR_ATOMICACKETH,
  HDR_ATOMICETH,
  HDR_RETH,
  OP_FIRST,
  OP_READ,
  OP_WRITE,
  W_ORIGINAL_HIGH,
  W_ORIGINAL_LOW,
  WC_SUCCESS,
} from '../../transport/index.ts';
import type { CapturedPacket } from './capture.ts';
import { Difference } from './findings.ts';
import type { Arrival, Flow } from './flow.ts';
import type { OurCompletion, Program } from './program.ts';

export class Tool {
  /** Messages taken so far. */
  private taken = 0;
  /** Ranges that peers have written, [start, end). */
  private readonly written: (readonly [start: number, end: number])[] = [];
  private readonly mtu: number;

  constructor(
    private readonly flow: Flow,
    private readonly program: Program,
  ) {
    this.mtu = flow.setup.connections[0]?.mtu ?? 1024;
  }

  /** Has ready what the captured host must have had when this request arrived; false if nothing was. */
  prepare(arrival: Arrival & { readonly place: number }): boolean {
    const isReceive = this.flow.receives.takes.has(arrival.place);
    if (isReceive) this.program.receiveAnything();
    this.presetMemory(arrival);
    return isReceive;
  }

  /** Compares what our receives hold with what was sent. Throws Difference. */
  check(completions: readonly OurCompletion[]): void {
    const { messages } = this.flow.receives;
    for (const { status, byteLen } of completions) {
      const message = messages[this.taken++];
      const held = this.program.memory.received(message?.length ?? 0);
      const isSame = status === WC_SUCCESS && message?.every((byte, i) => byte === held[i]);
      if (isSame) continue;
      const what = `message ${this.taken} was taken there; here it completes with status ${status}`;
      throw new Difference(`${what}, ${byteLen} bytes`, 0);
    }
  }

  /** Every message that the captured host took has to have been taken here. Throws Difference. */
  conclude(frame: number): void {
    const { length } = this.flow.receives.messages;
    if (this.taken === length) return;
    throw new Difference(`${length} messages were taken there, ${this.taken} here`, frame);
  }

  /** Puts into memory what the captured host must have had there when this request arrived. */
  private presetMemory({ packet, index }: Arrival): void {
    const { address, psn, flags } = packet;
    if (packet.has(HDR_ATOMICETH)) {
      const found = this.answersTo(psn, 1, index).find((answer) =>
        answer.packet.has(HDR_ATOMICACKETH),
      );
      if (found !== undefined) this.put(address, originalOf(found));
      this.written.push([address, address + 8]);
    } else if ((flags & OP_READ) !== 0) {
      for (const answer of this.answersTo(psn, packet.span(this.mtu), index)) {
        const offset = psnDistance(answer.packet.psn, psn) * this.mtu;
        this.put(address + offset, answer.packet.payload);
      }
    } else if ((flags & OP_WRITE) !== 0 && (flags & OP_FIRST) !== 0 && packet.has(HDR_RETH)) {
      this.written.push([address, address + packet.dmaBytes]);
    }
  }

  /** The first answer to each of these PSNs that carries data. */
  private answersTo(psn: number, count: number, from: number): CapturedPacket[] {
    const found = new Map<number, CapturedPacket>();
    for (const captured of this.flow.answers) {
      const { packet, index } = captured;
      const place = psnDistance(packet.psn, psn);
      const hasData = packet.payload.length > 0 || packet.has(HDR_ATOMICACKETH);
      if (index < from || place < 0 || place >= count || !hasData) continue;
      if (!found.has(place)) found.set(place, captured);
    }
    return [...found.values()];
  }

  /** Writes what nobody has written yet. */
  private put(address: number, bytes: Uint8Array): void {
    let start = 0;
    for (let i = 0; i <= bytes.length; i++) {
      const isFree = i < bytes.length && !this.isWritten(address + i);
      if (isFree) continue;
      if (i > start) this.program.memory.preset(address + start, bytes.subarray(start, i));
      start = i + 1;
    }
  }

  private isWritten(address: number): boolean {
    return this.written.some(([start, end]) => address >= start && address < end);
  }
}

/** The original value that an ATOMIC ACKNOWLEDGE brings, as it stood in memory. */
function originalOf({ packet }: CapturedPacket): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, packet.words[W_ORIGINAL_LOW], true);
  view.setUint32(4, packet.words[W_ORIGINAL_HIGH], true);
  return bytes;
}
