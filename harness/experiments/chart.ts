/**
 * The picture of an experiment: lines over one x axis, drawn by echarts without a browser.
 */
import * as echarts from 'echarts';
import type { ExperimentResult, Plot } from './experiment.ts';

const WIDTH = 820;
const HEIGHT = 460;

/** The text of the SVG. */
export function renderPlot(title: string, result: ExperimentResult, plot: Plot): string {
  const { columns, rows } = result;
  const x = columns.indexOf(plot.x);
  const chart = echarts.init(null, null, {
    renderer: 'svg',
    ssr: true,
    width: WIDTH,
    height: HEIGHT,
  });
  chart.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    title: { text: title, left: 20, top: 10, textStyle: { fontSize: 14 } },
    legend: { top: 40, data: [...plot.lines] },
    grid: { left: 80, top: 80, right: 40, bottom: 60 },
    xAxis: {
      type: plot.logX ? 'log' : 'value',
      name: plot.x,
      nameLocation: 'middle',
      nameGap: 32,
      min: 'dataMin',
    },
    yAxis: {
      type: plot.logY ? 'log' : 'value',
      name: plot.yTitle,
      nameTextStyle: { align: 'left' },
    },
    series: plot.lines.map((name) => ({
      type: 'line',
      name,
      symbolSize: 6,
      data: rows.map((row) => [Number(row[x]), Number(row[columns.indexOf(name)])]),
    })),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}
