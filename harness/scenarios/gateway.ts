/**
 * Nothing by itself: one host whose peer is on a real Ethernet, for `faultline gateway`.
 *
 * Queue pairs, regions and work come from control clients; see docs/GATEWAY.md. A scenario of your
 * own may have them too: give its queue pairs and the peer's regions their `remote` numbers.
 */
import { host, link, scenario } from 'faultline';

const own = host('a', { profile: 'spec', memory: '512MiB' });
const peer = host('b', { external: { ip: '192.0.2.1' } });

export const gateway = scenario(
  'gateway',
  'For faultline gateway: the peer is on a real Ethernet, work comes from control clients',
  [link(own, peer, { rate: '10Gbps', linkLayer: 'Ethernet' })],
  { limits: { simulated: '9000s' } },
);
