/**
 * Where answers land: the scatter entries of a READ or atomic at the requester.
 *
 * Nothing of a packet is written unless all of it can be. Keeps nothing between two packets: a
 * response names its place in the message by its PSN. Does not own what follows from a page that is
 * missing (`completer.ts`).
 */
import type { TimePs } from '../../transport/index.ts';
import { Pieces } from '../dma/pieces.ts';
import type { Region } from '../memory/region.ts';
import { LOCAL_WRITE } from '../memory/translator.ts';
import type { Parts } from '../qp/parts.ts';
import type { QueuePair } from '../qp/queue-pair.ts';

/** Answers of `place`. */
export const LANDED = 0;
/** A page is missing: see `faultRegion`, `faultAddress` and `faultBytes`. */
export const LANDING_FAULTED = 1;
/** The memory may not be written. */
export const LANDING_DENIED = 2;

export class Landing {
  faultRegion: Region | undefined;
  faultAddress = 0;
  faultBytes = 0;
  private readonly pieces: Pieces;

  constructor(
    private readonly qp: QueuePair,
    private readonly parts: Parts,
  ) {
    this.pieces = new Pieces(parts);
  }

  /** Writes `bytes`, at least one, from `burstOffset` of `burst` to byte `offset` of the buffers of `row`. */
  place(
    row: number,
    offset: number,
    burst: number,
    burstOffset: number,
    bytes: number,
    readyPs: TimePs,
  ): number {
    const queue = this.qp.sendQueue;
    this.pieces.clear();
    const verdict =
      queue.entries[row] === 0
        ? this.find(queue.lkey[row], queue.localAddress[row], queue.length[row], offset, bytes)
        : this.findSeveral(row, offset, bytes);
    if (verdict !== LANDED) return verdict;
    const write = this.pieces.write(burst, burstOffset, readyPs);
    this.parts.bus.sendDmaWrite(this.pieces.donePs(readyPs), write);
    return LANDED;
  }

  private findSeveral(row: number, offset: number, bytes: number): number {
    const { scatterLists: list, entries } = this.qp.sendQueue;
    let skip = offset;
    let left = bytes;
    for (let i = 0; i < entries[row] && left > 0; i++) {
      const length = list.length(row, i);
      const piece = Math.min(left, length - skip);
      if (piece <= 0) {
        skip -= length;
        continue;
      }
      const verdict = this.find(list.lkey(row, i), list.address(row, i), length, skip, piece);
      if (verdict !== LANDED) return verdict;
      left -= piece;
      skip = 0;
    }
    return LANDED;
  }

  /** Finds the pages of `bytes` at `offset` of one entry. */
  private find(
    lkey: number,
    address: number,
    length: number,
    offset: number,
    bytes: number,
  ): number {
    const { translator } = this.parts;
    const region = translator.check(lkey, this.qp.pd.number, address, length, LOCAL_WRITE);
    if (region === undefined) return LANDING_DENIED;
    if (this.pieces.find(region, address + offset, bytes)) return LANDED;
    this.faultRegion = region;
    this.faultAddress = translator.missAddress;
    this.faultBytes = address + length - translator.missAddress;
    return LANDING_FAULTED;
  }
}
