/**
 * transport: simulated time, packets, links and the channels that join components.
 *
 * What the other folders may use of it. Inside, sim <- wire <- capture <- fabric <- channel.
 */
export {
  type CapturedFrame,
  LINK_ERF,
  LINK_ETHERNET,
  LINK_INFINIBAND,
  LINK_IPV4,
  LINK_IPV6,
  LINK_RAW,
  placeOf,
} from './capture/capture.ts';
export { ERF_BYTES, ERF_ETHERNET, ERF_INFINIBAND, readErf, writeErf } from './capture/erf.ts';
export * from './capture/pcapng-writer.ts';
export * from './capture/read.ts';
export * from './channel/channel.ts';
export * from './channel/ethernet-socket.ts';
export * from './channel/handshake.ts';
export * from './channel/in-process.ts';
export * from './channel/lockstep.ts';
export * from './channel/peer.ts';
export * from './channel/stream-address.ts';
export * from './channel/switchboard.ts';
export * from './channel/websocket.ts';
export * from './fabric/bus-cost.ts';
export * from './fabric/fault-injector.ts';
export * from './fabric/link.ts';
export * from './fabric/wire-tap.ts';
export * from './sim/assert.ts';
export * from './sim/bits.ts';
export * from './sim/digest.ts';
export * from './sim/event-queue.ts';
export * from './sim/failure.ts';
export * from './sim/node.ts';
export * from './sim/partition.ts';
export * from './sim/prng.ts';
export * from './sim/sparse-table.ts';
export * from './sim/timer-queue.ts';
export * from './sim/units.ts';
export * from './wire/addresses.ts';
export * from './wire/big-endian.ts';
export * from './wire/block-pool.ts';
export * from './wire/bus.ts';
export { setAddress } from './wire/extension-headers.ts';
export * from './wire/frame-pool.ts';
export {
  type IcrcRule,
  icrcOfLocalPacket,
  icrcOfRoce,
  icrcRuleOf,
  rxeIcrcRules,
} from './wire/icrc.ts';
export * from './wire/infiniband.ts';
export * from './wire/ip-frame.ts';
export * from './wire/message-hash.ts';
export * from './wire/opcodes.ts';
export * from './wire/packet.ts';
export * from './wire/roce.ts';
export * from './wire/session.ts';
export * from './wire/verbs.ts';
export * from './wire/window.ts';
