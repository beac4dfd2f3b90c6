/**
 * The picture of a comparison: `report.svg`, self-contained, drawn by echarts without a browser.
 *
 * Left, the distribution of operation latencies (logarithmic, because a page fault is a thousand
 * times a hit); right, what each mode pays: faults, invalidations, RNR NAKs, registrations, and pinned
 * memory in pages.
 */
import * as echarts from 'echarts';
import type { Mode } from '../scenario/schema.ts';
import { formatCount, formatNs } from './format.ts';
import { latencyDistribution } from './latency.ts';
import type { ModeSummary, Summary } from './summary.ts';

const WIDTH = 1100;
const HEIGHT = 440;
const colours: Readonly<Record<Mode, string>> = { pinned: '#2f6f9f', odp: '#d1693c' };
const PAGE_BYTES = 4096;

const bars: readonly (readonly [string, (mode: ModeSummary) => number])[] = [
  ['pages faulted in', (m) => m.page_faults],
  ['pages invalidated', (m) => m.page_invalidations],
  ['RNR NAKs', (m) => m.rnr_naks],
  ['registrations', (m) => m.registrations],
  ['pinned pages, peak', (m) => m.pinned_bytes_peak / PAGE_BYTES],
];

/** The text of the SVG. `latenciesPs` holds the latencies of each mode's operations, ps. */
export function renderChart(
  summary: Summary,
  latenciesPs: Partial<Record<Mode, readonly number[]>>,
): string {
  const modes = Object.entries(summary.modes) as [Mode, ModeSummary][];
  const chart = echarts.init(null, null, {
    renderer: 'svg',
    ssr: true,
    width: WIDTH,
    height: HEIGHT,
  });
  chart.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    title: [
      { text: `${summary.scenario}, seed ${summary.seed}`, left: 20, top: 10 },
      titleOf('Operations completed within', 70),
      titleOf('What it took (count + 1, logarithmic)', 640),
    ],
    legend: { right: 20, top: 14, data: modes.map(([name]) => name) },
    grid: [
      { left: 70, top: 90, width: 480, height: 270 },
      { left: 770, top: 90, width: 270, height: 270 },
    ],
    xAxis: [
      {
        type: 'log',
        gridIndex: 0,
        name: 'latency, from posting to completion',
        nameLocation: 'middle',
        nameGap: 32,
        axisLabel: { formatter: formatNs },
        min: 'dataMin',
      },
      {
        type: 'log',
        gridIndex: 1,
        min: 1,
        axisLabel: { formatter: (n: number) => formatCount(n) },
      },
    ],
    yAxis: [
      { type: 'value', gridIndex: 0, min: 0, max: 100, axisLabel: { formatter: '{value} %' } },
      { type: 'category', gridIndex: 1, inverse: true, data: bars.map(([title]) => title) },
    ],
    series: modes.flatMap(([name, mode]) => [
      {
        type: 'line',
        name,
        xAxisIndex: 0,
        yAxisIndex: 0,
        step: 'end',
        showSymbol: false,
        lineStyle: { width: 2.5 },
        color: colours[name],
        data: latencyDistribution(latenciesPs[name] ?? []).map(({ ns, share }) => [
          Math.max(1, ns),
          share,
        ]),
      },
      {
        type: 'bar',
        name,
        xAxisIndex: 1,
        yAxisIndex: 1,
        color: colours[name],
        // A bar on a logarithmic axis starts at 1: count + 1 keeps 0 apart from 1.
        data: bars.map(([, value]) => value(mode) + 1),
        label: {
          show: true,
          position: 'right',
          formatter: ({ value }: { value: unknown }) => formatCount(Number(value) - 1),
        },
      },
    ]),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}

function titleOf(text: string, left: number) {
  return { text, left, top: 56, textStyle: { fontSize: 13, fontWeight: 'normal' as const } };
}
