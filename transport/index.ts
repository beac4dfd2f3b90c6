/**
 * transport: simulated time, packets, links and the channels that join components.
 *
 * What the other folders may use of it. Inside, sim <- wire <- fabric <- channel.
 */
export * from './channel/channel.ts';
export * from './channel/handshake.ts';
export * from './channel/in-process.ts';
export * from './channel/lockstep.ts';
export * from './channel/peer.ts';
export * from './channel/switchboard.ts';
export * from './channel/websocket.ts';
export * from './fabric/bus-cost.ts';
export * from './fabric/fault-injector.ts';
export * from './fabric/link.ts';
export * from './sim/assert.ts';
export * from './sim/bits.ts';
export * from './sim/digest.ts';
export * from './sim/event-queue.ts';
export * from './sim/failure.ts';
export * from './sim/node.ts';
export * from './sim/partition.ts';
export * from './sim/prng.ts';
export * from './sim/timer-queue.ts';
export * from './sim/units.ts';
export * from './wire/block-pool.ts';
export * from './wire/bus.ts';
export * from './wire/frame-pool.ts';
export * from './wire/message-hash.ts';
export * from './wire/opcodes.ts';
export * from './wire/packet.ts';
export * from './wire/session.ts';
export * from './wire/verbs.ts';
export * from './wire/window.ts';
