/**
 * Looks through MessagePack before anything is built from it.
 *
 * A decoder believes the counts it reads: five bytes that announce an array of thirty million, a few
 * times nested, exhaust memory before the missing elements are missed. This walk allocates nothing
 * and refuses what faultline never sends: counts beyond the bytes that are left, deep nesting,
 * extension types, bytes behind the value. Source: the MessagePack specification, "Formats".
 */

const MAX_DEPTH = 32;

/** Why bytes are not one acceptable MessagePack value, or undefined when they are. */
export function msgpackProblem(bytes: Uint8Array, from: number): string | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  // Values still to come, at each depth.
  const left = [1];
  let at = from;
  while (left.length > 0) {
    if (left[left.length - 1] === 0) {
      left.pop();
      continue;
    }
    left[left.length - 1]--;
    if (at >= bytes.length) return 'it ends inside a value';
    const type = bytes[at++];
    let skip = 0;
    let values = 0;
    if (type <= 0x7f || type >= 0xe0) skip = 0;
    else if (type <= 0x8f) values = 2 * (type & 0x0f);
    else if (type <= 0x9f) values = type & 0x0f;
    else if (type <= 0xbf) skip = type & 0x1f;
    else {
      const shape = shapes[type - 0xc0];
      if (shape === undefined) return `type 0x${type.toString(16)} is not used here`;
      if (bytes.length - at < shape.countBytes) return 'it ends inside a length';
      const count = readCount(view, at, shape.countBytes);
      at += shape.countBytes;
      skip = shape.fixedBytes + count * shape.unitBytes;
      values = count * shape.unitValues;
    }
    // Each value takes a byte at least.
    if (skip + values > bytes.length - at) return 'a length exceeds what is left';
    at += skip;
    if (values > 0) {
      if (left.length === MAX_DEPTH) return `it nests deeper than ${MAX_DEPTH}`;
      left.push(values);
    }
  }
  return at === bytes.length ? undefined : 'bytes follow the value';
}

interface Shape {
  readonly countBytes: number;
  readonly fixedBytes: number;
  /** Bytes, or values, for each one counted. */
  readonly unitBytes: number;
  readonly unitValues: number;
}

const plain = (fixedBytes: number): Shape => {
  return { countBytes: 0, fixedBytes, unitBytes: 0, unitValues: 0 };
};
const counted = (countBytes: number, unitBytes: number, unitValues: number): Shape => {
  return { countBytes, fixedBytes: 0, unitBytes, unitValues };
};

/** Types 0xc0 to 0xdf; undefined is refused. */
const shapes: readonly (Shape | undefined)[] = [
  ...[plain(0), undefined, plain(0), plain(0)], // nil, never used, false, true
  ...[counted(1, 1, 0), counted(2, 1, 0), counted(4, 1, 0)], // bin 8, 16, 32
  ...[undefined, undefined, undefined], // ext 8, 16, 32
  ...[plain(4), plain(8)], // float 32, 64
  ...[plain(1), plain(2), plain(4), plain(8)], // uint 8, 16, 32, 64
  ...[plain(1), plain(2), plain(4), plain(8)], // int 8, 16, 32, 64
  ...[undefined, undefined, undefined, undefined, undefined], // fixext 1, 2, 4, 8, 16
  ...[counted(1, 1, 0), counted(2, 1, 0), counted(4, 1, 0)], // str 8, 16, 32
  ...[counted(2, 0, 1), counted(4, 0, 1)], // array 16, 32
  ...[counted(2, 0, 2), counted(4, 0, 2)], // map 16, 32
];

function readCount(view: DataView, at: number, bytes: number): number {
  if (bytes === 1) return view.getUint8(at);
  if (bytes === 2) return view.getUint16(at);
  return bytes === 4 ? view.getUint32(at) : 0;
}
