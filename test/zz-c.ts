import { Pair, BASE } from './fixtures/pair.ts';
import { READY_PS, REGION_KEY } from './fixtures/bare-host.ts';
import { firstDifference } from '../transport/index.ts';
const logs:any[]=[];
for (const trains of [false,true]) {
 const pair=new Pair({trains, rateGbps:400, profile:{ackRequestPackets:1}, setUpA:{mtu:1024,queuePairs:2}, setUpB:{mtu:1024,queuePairs:2}});
 const log:any[]=[]; for (const n of [pair.hcaA.node,pair.a.node,pair.hcaB.node,pair.b.node]) n.digest.attach(log); logs.push(log);
 pair.a.fill(BASE,300000,1);
 pair.a.at(READY_PS,()=>pair.a.postSend(0x11,{opcode:0,wrId:0,lkey:REGION_KEY,rkey:REGION_KEY,address:BASE,remote:BASE+200000,length:66561}));
 pair.drive();
}
const d=firstDifference(logs[0],logs[1]); console.log(JSON.stringify(d));
