/**
 * The picture of an experiment: lines over one x axis, drawn by echarts without a browser.
 */
import * as echarts from 'echarts';
import type { Cell, ExperimentResult, Plot } from './experiment.ts';

const WIDTH = 820;
const HEIGHT = 460;

/** The text of the SVG. */
export function renderPlot(title: string, result: ExperimentResult, plot: Plot): string {
  const lines = linesOf(result, plot);
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
    legend: { top: 40, data: lines.map(({ name }) => name) },
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
    series: lines.map(({ name, points }) => ({
      type: 'line',
      name,
      symbolSize: 6,
      data: points,
    })),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}

interface Line {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

/** The lines of a plot, each in order of x, without cells that are no numbers. */
function linesOf({ columns, rows }: ExperimentResult, plot: Plot): Line[] {
  const cell = (row: readonly Cell[], column: string): Cell => row[columns.indexOf(column)] ?? '';
  const only = Object.entries(plot.only ?? {});
  const drawn = rows.filter((row) => only.every(([column, value]) => cell(row, column) === value));
  const line = (name: string, column: string, of: readonly (readonly Cell[])[]): Line => ({
    name,
    points: of
      .map((row) => [Number(cell(row, plot.x)), Number(cell(row, column) || Number.NaN)] as const)
      .filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y))
      .sort(([a], [b]) => a - b),
  });
  const { by, lines } = plot;
  if (by === undefined) return lines.map((column) => line(column, column, drawn));
  const names = [...new Set(drawn.map((row) => cell(row, by)))];
  const [column = ''] = lines;
  return names.map((name) =>
    line(
      String(name),
      column,
      drawn.filter((row) => cell(row, by) === name),
    ),
  );
}
