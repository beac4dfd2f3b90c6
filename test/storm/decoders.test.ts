/**
 * A fuzzer on the decoders: captured frames of real hosts with bytes changed, cut off and put
 * together anew, packets of our own likewise, and plain noise; and capture files treated the same.
 *
 * Nothing throws that is not a Failure; nothing outside the bytes that were given is looked at, or
 * written; what is refused leaves nothing in the pool; and what is accepted comes out again byte for
 * byte. FRAMES is how many frames there are, FILES how many capture files, SEED the seed.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import {
  BlockPool,
  BURST,
  decodeNative,
  decodePacket,
  decodeRoce,
  encodeNative,
  encodePacket,
  encodeRoce,
  Failure,
  FRAME_WORDS,
  FramePool,
  GRH_BYTES,
  HEADERS_MAX_BYTES,
  NativeHeader,
  PAYLOAD_BYTES,
  PAYLOAD_MAX_BYTES,
  packetProblem,
  RandomStream,
  ROCE_MAX_BYTES,
  RoceHeader,
  readCapture,
  rxeIcrcRules,
  W_DEST_QPN,
  W_OPCODE,
  W_PSN,
} from '../../transport/index.ts';
import { icrcOfLocalPacket } from '../../transport/wire/icrc.ts';
import { BTH_BYTES } from '../../transport/wire/transport-headers.ts';

const FRAMES = Number(process.env.FRAMES ?? 100_000);
const FILES = Number(process.env.FILES ?? 2_000);
const SEED = Number(process.env.SEED ?? 1);
const IS_TOLD = process.env.FRAMES !== undefined || process.env.FILES !== undefined;
/** Where a frame stands in the scratch buffers; what is around it differs between the two. */
const AT = 64;
const ROOM = 16_384;
/** A GRH, headers that an unknown opcode makes payload of, and a path MTU. */
const MOST_PAYLOAD = GRH_BYTES + HEADERS_MAX_BYTES - BTH_BYTES + PAYLOAD_MAX_BYTES;

const folder = new URL('../captures/', import.meta.url);
const files = readdirSync(folder)
  .filter((name) => name.endsWith('.pcap'))
  .sort()
  .map((name) => ({ name, bytes: new Uint8Array(readFileSync(new URL(name, folder))) }));
const captured = files.flatMap(({ name, bytes }) =>
  [...readCapture(bytes, name)].map((frame) => frame.bytes.slice()),
);

const pool = new FramePool(new BlockPool(64), 64, 64);
const header = new RoceHeader();
const native = new NativeHeader();

/** One way to read a frame and to write it again. */
interface Codec {
  readonly name: string;
  readonly decode: (bytes: Uint8Array, at: number, end: number) => number;
  readonly encode: (frame: number, out: Uint8Array, at: number) => number;
  /** Whether it keeps every byte; pads and lanes mean nothing between our own processes. */
  readonly isExact: boolean;
  /** Frames that it may accept. */
  readonly corpus: readonly Uint8Array[];
  /** Makes the bytes acceptable again where a change alone would have them refused. */
  readonly repair: ((bytes: Uint8Array, at: number, end: number) => void) | undefined;
}

/** Local packets of all opcodes with a little payload. */
function ownPackets(): Uint8Array[] {
  const out = new Uint8Array(ROOM);
  const packets: Uint8Array[] = [];
  for (let opcode = 0; opcode < 256; opcode++) {
    for (const bytes of [0, 5, 64, 1024]) {
      const frame = pool.allocate();
      pool.words[frame * FRAME_WORDS + W_OPCODE] = opcode;
      pool.words[frame * FRAME_WORDS + PAYLOAD_BYTES] = bytes;
      const data = new Uint8Array(bytes).fill(opcode);
      if (bytes > 0) pool.words[frame * FRAME_WORDS + BURST] = pool.burstFromBytes(data, 0, bytes);
      packets.push(out.slice(0, encodePacket(pool, frame, 0, out, 0)));
      pool.release(frame);
    }
  }
  return packets;
}

const own = ownPackets();
const codecs: readonly Codec[] = [
  {
    name: 'RoCEv2',
    decode: (bytes, at, end) =>
      decodeRoce(pool, bytes, at, end, header, { icrcRules: rxeIcrcRules, withGrh: false }),
    encode: (frame, out, at) => encodeRoce(pool, frame, 0, header, out, at),
    isExact: true,
    corpus: captured,
    repair: undefined,
  },
  {
    name: 'RoCEv2, datagrams with their GRH',
    decode: (bytes, at, end) => decodeRoce(pool, bytes, at, end, header, { withGrh: true }),
    encode: (frame, out, at) => encodeRoce(pool, frame, 0, header, out, at),
    isExact: true,
    corpus: captured,
    repair: undefined,
  },
  {
    name: 'native InfiniBand of a capture',
    decode: (bytes, at, end) => decodeNative(pool, bytes, at, end, native),
    encode: (frame, out, at) => encodeNative(pool, frame, 0, native, out, at),
    isExact: true,
    corpus: own,
    repair: undefined,
  },
  {
    name: 'native InfiniBand between processes',
    decode: (bytes, at, end) => decodePacket(pool, bytes, at, end),
    encode: (frame, out, at) => encodePacket(pool, frame, 0, out, at),
    isExact: false,
    corpus: own,
    repair: (bytes, at, end) => {
      if (end - at < 28) return;
      // What `encodePacket` always writes, the length and the ICRC.
      bytes[at] = 0;
      bytes[at + 1] = 2;
      bytes[at + 4] = (end - at) >>> 10;
      bytes[at + 5] = (end - at) >>> 2;
      const icrc = icrcOfLocalPacket(bytes, at, end - 4);
      for (let i = 0; i < 4; i++) bytes[end - 4 + i] = icrc >>> (8 * i);
    },
  },
];

/** Puts a frame to test into `bytes` at AT; returns its end. */
function draw(chance: RandomStream, codec: Codec, bytes: Uint8Array): number {
  const pick = (): Uint8Array => codec.corpus[chance.below(codec.corpus.length)] as Uint8Array;
  let end = AT;
  const kind = chance.below(16);
  if (kind === 0) {
    end += chance.below(300);
    for (let i = AT; i < end; i++) bytes[i] = chance.next();
    return end;
  }
  const frame = pick();
  bytes.set(frame, AT);
  end += frame.length;
  if (kind === 1) return end;
  if (kind === 2) {
    // The head of one and the tail of another.
    const other = pick();
    const from = chance.below(Math.min(frame.length, other.length));
    bytes.set(other.subarray(from), AT + from);
    end = AT + other.length;
  } else if (kind === 3) end = AT + chance.below(frame.length + 1);
  else if (kind === 4) {
    const more = chance.below(70);
    for (let i = 0; i < more; i++) bytes[end++] = chance.next();
  }
  for (let changes = chance.below(7); changes > 0 && end > AT; changes--) {
    // Mostly headers; a changed payload says little.
    const at = AT + chance.below(Math.min(end - AT, chance.below(5) === 0 ? ROOM : 100));
    const how = chance.below(4);
    if (how === 0) bytes[at] = (bytes[at] as number) ^ (1 << chance.below(8));
    else if (how === 1) bytes[at] = [0, 1, 0x7f, 0x80, 0xff][chance.below(5)] as number;
    else if (how === 2) bytes[at] = (bytes[at] as number) + chance.below(9) - 4;
    else bytes[at] = chance.next();
  }
  if (chance.below(4) > 0) codec.repair?.(bytes, AT, end);
  return end;
}

/** What the decoder made of a frame, in a form that can be compared. */
function told(frame: number): string {
  const words = pool.words.slice(frame * FRAME_WORDS, frame * FRAME_WORDS + BURST);
  const payload = words[PAYLOAD_BYTES] as number;
  const bytes = new Uint8Array(payload);
  const burst = pool.words[frame * FRAME_WORDS + BURST] as number;
  if (payload > 0) pool.burstToBytes(burst, 0, payload, bytes, 0);
  return `${words.join()}/${pool.doubles[frame * 2]}/${pool.doubles[frame * 2 + 1]}/${Buffer.from(bytes).toString('latin1')}`;
}

function check(condition: boolean, what: string): void {
  if (!condition) throw new Error(what);
}

it.each(codecs)(
  `$name: ${FRAMES} frames from seed ${SEED}`,
  (codec) => {
    const chance = new RandomStream(SEED, 'decoders', codec.name);
    const low = new Uint8Array(ROOM);
    const high = new Uint8Array(ROOM);
    const out = new Uint8Array(ROOM);
    let accepted = 0;
    const started = performance.now();
    for (let n = 0; n < FRAMES; n++) {
      const end = draw(chance, codec, low);
      // Only the frame itself may matter: it stands among zeros here and among ones there.
      low.fill(0, 0, AT);
      low.fill(0, end, end + 128);
      high.fill(0xff, 0, AT);
      high.set(low.subarray(AT, end), AT);
      high.fill(0xff, end, end + 128);
      try {
        const other = codec.decode(high, AT, end);
        const hint = other < 0 ? '' : told(other);
        if (other >= 0) pool.release(other);
        const frame = codec.decode(low, AT, end);
        if (frame < 0) {
          check(other === frame, `${other} among ones, ${frame} among zeros`);
          check(packetProblem[frame] !== undefined, `${frame} is no problem that is known`);
        } else {
          accepted++;
          check(hint === told(frame), 'what is around the frame is looked at');
          const base = frame * FRAME_WORDS;
          const words = pool.words;
          const payload = words[base + PAYLOAD_BYTES] as number;
          check(payload >= 0 && payload <= MOST_PAYLOAD, `${payload} bytes of payload`);
          check(payload > 0 === ((words[base + BURST] as number) !== 0), 'payload without a burst');
          check((words[base + W_DEST_QPN] as number) >>> 24 === 0, 'a QP number above 24 bits');
          check((words[base + W_PSN] as number) >>> 24 === 0, 'a PSN above 24 bits');
          out.fill(0x5a, 0, end + 256);
          const last = codec.encode(frame, out, AT);
          check(last === end, `${end - AT} bytes come out as ${last - AT}`);
          if (codec.isExact) {
            const differs = Buffer.compare(out.subarray(AT, end), low.subarray(AT, end));
            check(differs === 0, 'other bytes come out');
          } else {
            const again = codec.decode(out, AT, end);
            check(again >= 0 && told(again) === hint, 'what comes out is another packet');
            pool.release(again);
          }
          check(last - AT <= ROCE_MAX_BYTES, 'more bytes come out than there can be');
          check(
            out[AT - 1] === 0x5a && out.subarray(end, end + 64).every((byte) => byte === 0x5a),
            'bytes around the frame were written',
          );
          pool.release(frame);
        }
        check(pool.framesInUse + pool.burstsInUse + pool.blocks.blocksInUse === 0, 'a leak');
      } catch (error) {
        const bytes = Buffer.from(low.subarray(AT, end)).toString('hex');
        throw new Error(`frame ${n} of seed ${SEED}: ${bytes}`, { cause: error });
      }
    }
    const seconds = (performance.now() - started) / 1000;
    if (IS_TOLD) {
      const rate = Math.round(FRAMES / seconds);
      process.stderr.write(
        `${codec.name}: seed ${SEED}, ${FRAMES} frames, ${accepted} accepted, ${rate} a second\n`,
      );
    }
    // Frames that are all refused would show little.
    expect(accepted).toBeGreaterThan(FRAMES / 6);
  },
  60_000 + FRAMES,
);

it(
  `capture files: ${FILES} from seed ${SEED}`,
  () => {
    const chance = new RandomStream(SEED, 'decoders', 'files');
    const sources = files.filter(({ bytes }) => bytes.length < 20_000);
    let frames = 0;
    let failures = 0;
    for (let n = 0; n < FILES; n++) {
      const source = sources[chance.below(sources.length)] as (typeof sources)[0];
      let bytes = source.bytes.slice();
      for (let changes = 1 + chance.below(5); changes > 0; changes--) {
        const at = chance.below(chance.below(2) === 0 ? bytes.length : Math.min(bytes.length, 120));
        bytes[at] = chance.below(3) === 0 ? 0xff : chance.next();
      }
      if (chance.below(4) === 0) bytes = bytes.subarray(0, chance.below(bytes.length + 1));
      try {
        for (const frame of readCapture(bytes, source.name)) {
          frames++;
          check(frame.bytes.length <= frame.bytes.buffer.byteLength, 'a frame outside its file');
        }
      } catch (error) {
        if (!(error instanceof Failure)) {
          throw new Error(`file ${n} of seed ${SEED} (${source.name})`, { cause: error });
        }
        expect(error.code).toBe('E_CAPTURE_INVALID');
        failures++;
      }
    }
    if (IS_TOLD) {
      process.stderr.write(
        `capture files: seed ${SEED}, ${FILES} files, ${frames} frames, ${failures} refused\n`,
      );
    }
    expect(frames).toBeGreaterThan(FILES);
    expect(failures).toBeGreaterThan(FILES / 20);
  },
  60_000 + FILES * 10,
);
