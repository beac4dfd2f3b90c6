import { streamPacketsPerCpuSecond } from './stream.ts';
for (let i=0;i<3;i++) console.log(Math.round(streamPacketsPerCpuSecond(Number(process.argv[2]??1500), process.argv[3]==='v')));
