// The report's figures as Vega specifications: figure(name, data, look) for the page and for the command line.
//
// look: {width, height, font, background, title, subtitle, colors: {ink, muted, rule, accent, sequence: [5], categories: [8]}}; colours are anything
// that an SVG attribute takes, in the page variables of its style sheet.
'use strict';

const epoFigures = (() => {
  const SHAPES = ['circle', 'square', 'triangle-up', 'diamond', 'cross', 'triangle-down', 'wedge', 'triangle-right'];
  const NATS = 'cross-entropy, nats (to the left: more fluent)';

  const isNarrow = look => look.width < 560;

  function base(look, parts) {
    const {colors} = look;
    const axis = {
      labelColor: colors.muted, titleColor: colors.ink, domainColor: colors.rule, tickColor: colors.rule, gridColor: colors.rule,
      labelFontSize: 11, titleFontSize: 12, titleFontWeight: 'normal', titlePadding: 8, gridOpacity: 0.55, tickSize: 4, labelPadding: 4,
    };
    const title = {
      text: look.title, anchor: 'start', color: colors.ink, fontSize: 14, fontWeight: 'bold', offset: 10, limit: look.width - 20,
      ...(look.subtitle ? {subtitle: look.subtitle, subtitleColor: colors.muted, subtitleFontSize: 12, subtitlePadding: 4} : {}),
    };
    return {
      $schema: 'https://vega.github.io/schema/vega/v6.json',
      width: look.width, height: look.height, padding: 4, autosize: {type: 'fit', contains: 'padding'},
      background: look.background || null,
      ...(look.title ? {title} : {}),
      config: {
        font: look.font, axis,
        style: {'guide-label': {font: look.font}, 'guide-title': {font: look.font}, 'group-title': {font: look.font}},
        legend: {
          labelColor: colors.ink, titleColor: colors.muted, labelFontSize: 11, titleFontSize: 11, titleFontWeight: 'normal',
          titleOrient: 'left', orient: 'top', direction: 'horizontal', offset: 8, columnPadding: 14, rowPadding: 4, labelLimit: 260,
          titleAnchor: 'start', titlePadding: 10, titleLimit: 300,
        },
      },
      ...parts,
    };
  }

  // Scales over all of `points` ({x, y}), with a little room so that no mark is cut.
  function plane(points) {
    const scale = (field, range) => {
      const values = points.length ? points.map(p => p[field]) : [0, 1];
      const low = Math.min(...values), high = Math.max(...values);
      const room = (high - low || Math.abs(high) || 1) * 0.04;
      return {name: field, type: 'linear', domain: [low - room, high + room], nice: true, zero: false, range};
    };
    return [scale('x', 'width'), scale('y', 'height')];
  }

  function axes(look, xTitle, yTitle) {
    const count = {x: isNarrow(look) ? 5 : 9, y: Math.max(3, Math.round(look.height / 60))};
    return [
      {orient: 'bottom', scale: 'x', title: xTitle, tickCount: count.x, grid: false},
      {orient: 'left', scale: 'y', title: yTitle, tickCount: count.y, grid: true, domain: false, ticks: false, zindex: 0},
    ];
  }

  const at = (extra = {}) => ({x: {scale: 'x', field: 'x'}, y: {scale: 'y', field: 'y'}, ...extra});
  const scored = points => points.filter(p => p.cross_entropy !== null && p.target !== null);
  const place = p => ({x: p.cross_entropy, y: p.target});

  // Texts that leave out what does not fit: each point's, and nothing over any point. What a label must keep clear of is given as empty
  // texts around each point.
  function labels(points, colors, others = []) {
    const around = [[0, 0], [-5, 0], [5, 0], [0, -5], [0, 5], [-4, -4], [4, -4], [-4, 4], [4, 4]];
    const values = points.flatMap(p => around.map(([dx, dy], i) => ({x: p.x, y: p.y, dx, dy, label: i ? '' : p.label, rank: i ? -1 : p.rank})))
      .concat(others.map(p => ({...p, dx: 0, dy: 0, label: '', rank: -1})));
    return {
      data: {name: 'labels', values},
      mark: {
        type: 'text', from: {data: 'labels'}, interactive: false,
        encode: {
          enter: {
            x: {scale: 'x', field: 'x', offset: {field: 'dx'}}, y: {scale: 'y', field: 'y', offset: {field: 'dy'}},
            text: {field: 'label'}, fill: {value: colors.ink}, fontSize: {value: 11},
          },
        },
        transform: [{
          type: 'label', size: {signal: '[width, height]'}, sort: {field: 'datum.rank', order: 'descending'},
          anchor: ['right', 'top-right', 'bottom-right', 'left', 'top-left', 'bottom-left', 'top', 'bottom'], offset: [7],
        }],
      },
    };
  }

  // Points along the line through `points`, so that labels keep clear of it, too.
  function along(points) {
    const steps = 10;
    return points.slice(1).flatMap((to, i) => {
      const from = points[i];
      return Array.from({length: steps - 1}, (_, k) => ({x: from.x + (to.x - from.x) * (k + 1) / steps, y: from.y + (to.y - from.y) * (k + 1) / steps}));
    });
  }

  // Ends first, then halves, then quarters: so that those that find room are spread.
  function spread(count) {
    const rank = new Array(count).fill(-1);
    let next = count;
    for (let step = Math.max(1, count - 1); ; step /= 2) {
      for (let i = 0; i < count; i += step) {
        const k = Math.min(count - 1, Math.round(i));
        if (rank[k] < 0) rank[k] = next--;
      }
      if (count > 0 && rank[count - 1] < 0) rank[count - 1] = next--;
      if (step < 1) return rank;
    }
  }

  function labelled(points, look) {
    const most = isNarrow(look) ? 20 : 44;
    const rank = spread(points.length);
    return points.map((p, i) => ({...place(p), index: i, label: epoText.label(p.text, most), rank: rank[i]}));
  }

  function frontier(data, look) {
    const {colors} = look;
    const points = labelled(scored(data.frontier), look);
    const others = data.pareto.map(([x, y]) => ({x, y}));
    const texts = labels(points, colors, [...others, ...along(points)]);
    return base(look, {
      description: 'Prompts of the frontier: target against cross-entropy',
      data: [{name: 'points', values: points}, {name: 'others', values: others}, texts.data],
      scales: plane([...points, ...others]),
      axes: axes(look, NATS, 'target'),
      marks: [
        {type: 'symbol', from: {data: 'others'}, interactive: false, encode: {enter: at({size: {value: 9}, fill: {value: colors.muted}, opacity: {value: 0.55}})}},
        {type: 'line', from: {data: 'points'}, interactive: false, encode: {enter: at({stroke: {value: colors.accent}, strokeWidth: {value: 1}, opacity: {value: 0.45}})}},
        {type: 'symbol', from: {data: 'points'}, encode: {enter: at({size: {value: 58}, fill: {value: colors.accent}, tooltip: {signal: '{index: datum.index}'}})}},
        texts.mark,
      ],
    });
  }

  function seriesLegend(look, title, extra = {}) {
    return [{
      fill: 'color', title, symbolType: 'circle', symbolSize: 70, symbolStrokeWidth: 0, columns: isNarrow(look) ? 3 : 8, ...extra,
    }];
  }

  // The ordered colours from pale to strong: the last of them when there are fewer series.
  const ordered = (look, count) => look.colors.sequence.slice(-Math.max(1, count));

  function evolution(data, look) {
    const names = data.evolution.map(e => String(e.iterations));
    const rows = data.evolution.flatMap(e => e.points.map(([x, y]) => ({x, y, series: String(e.iterations)})));
    const color = {scale: 'color', field: 'series'};
    return base(look, {
      description: 'The frontier after several numbers of iterations',
      data: [{name: 'rows', values: rows}],
      scales: [...plane(rows), {name: 'color', type: 'ordinal', domain: names, range: ordered(look, names.length)}],
      axes: axes(look, NATS, 'target'),
      legends: seriesLegend(look, 'iterations'),
      marks: [{
        type: 'group', from: {facet: {name: 'one', data: 'rows', groupby: 'series'}},
        marks: [
          {type: 'line', from: {data: 'one'}, interactive: false, encode: {enter: at({stroke: color, strokeWidth: {value: 1.75}})}},
          {type: 'symbol', from: {data: 'one'}, interactive: false, encode: {enter: at({fill: color, size: {value: 22}})}},
        ],
      }],
    });
  }

  function thresholds(data, look) {
    const {colors} = look;
    const names = data.thresholds.map(t => String(t.limit));
    const rows = data.thresholds.flatMap(t => t.points.map(([x, y]) => ({x, y, series: String(t.limit)})));
    // A curve of one iteration has no line to show.
    const ends = data.thresholds.flatMap(t => t.points.slice(-1).map(([x, y]) => ({x, y, series: String(t.limit)})));
    const [, y] = plane(rows);
    const [iteration, best] = axes(look, 'iteration', 'best target');
    const color = {scale: 'color', field: 'series'};
    return base(look, {
      description: 'The best target with a cross-entropy under each threshold, by iteration',
      data: [{name: 'rows', values: rows}, {name: 'ends', values: ends}, {name: 'restarts', values: data.restarts.map(x => ({x}))}],
      scales: [
        {name: 'x', type: 'linear', domain: [1, Math.max(2, data.completed)], range: 'width', nice: false, zero: false}, y,
        {name: 'color', type: 'ordinal', domain: names, range: ordered(look, names.length)},
      ],
      // None between two iterations.
      axes: [{...iteration, tickCount: Math.max(1, Math.min(iteration.tickCount, data.completed - 1))}, best],
      legends: seriesLegend(look, 'cross-entropy at most'),
      marks: [
        {
          type: 'rule', from: {data: 'restarts'}, interactive: false,
          encode: {
            enter: {
              x: {scale: 'x', field: 'x'}, y: {value: 0}, y2: {signal: 'height'}, stroke: {value: colors.muted}, strokeDash: {value: [2, 4]}, strokeWidth: {value: 1},
            },
          },
        },
        {
          type: 'group', from: {facet: {name: 'one', data: 'rows', groupby: 'series'}},
          marks: [{type: 'line', from: {data: 'one'}, interactive: false, encode: {enter: at({interpolate: {value: 'step-after'}, stroke: color, strokeWidth: {value: 2}})}}],
        },
        {type: 'symbol', from: {data: 'ends'}, interactive: false, encode: {enter: at({fill: color, size: {value: 40}})}},
      ],
    });
  }

  // The frontiers of several jobs, each in a colour and a shape of its own.
  function overlay(data, look) {
    const {colors} = look;
    const names = data.jobs.map(job => job.name);
    const lines = data.jobs.map(job => labelled(scored(job.frontier), look).map(p => ({...p, series: job.name})));
    const rows = lines.flat();
    const texts = labels(rows, colors, lines.flatMap(along));
    const color = {scale: 'color', field: 'series'};
    // As many columns as hold the longest name, at a guess of its width, and each as wide as it may be.
    const longest = Math.max(...names.map(name => name.length));
    const columns = Math.max(1, Math.min(3, Math.floor(look.width / (6.5 * longest + 40))));
    return base(look, {
      description: 'The frontiers of several jobs: target against cross-entropy',
      data: [{name: 'rows', values: rows}, texts.data],
      scales: [
        ...plane(rows), {name: 'color', type: 'ordinal', domain: names, range: colors.categories},
        {name: 'shape', type: 'ordinal', domain: names, range: SHAPES},
      ],
      axes: axes(look, NATS, 'target'),
      legends: seriesLegend(look, '', {symbolType: undefined, shape: 'shape', title: null, columns, labelLimit: Math.floor(look.width / columns) - 40}),
      marks: [
        {
          type: 'group', from: {facet: {name: 'one', data: 'rows', groupby: 'series'}},
          marks: [
            {type: 'line', from: {data: 'one'}, interactive: false, encode: {enter: at({stroke: color, strokeWidth: {value: 1.25}, opacity: {value: 0.7}})}},
            {type: 'symbol', from: {data: 'one'}, encode: {enter: at({fill: color, shape: {scale: 'shape', field: 'series'}, size: {value: 60}, tooltip: {signal: '{series: datum.series, index: datum.index}'}})}},
          ],
        },
        texts.mark,
      ],
    });
  }

  // One of a sweep's small multiples; `data` has the bounds of all, so that they can be compared.
  function multiple(data, look) {
    const rows = scored(data.points).map(place);
    return base(look, {
      description: 'Target against cross-entropy of ' + data.name,
      data: [{name: 'rows', values: rows}],
      scales: plane(data.bounds),
      axes: [
        {orient: 'bottom', scale: 'x', tickCount: 4, grid: false, labelFontSize: 10},
        {orient: 'left', scale: 'y', tickCount: 3, grid: true, domain: false, ticks: false, labelFontSize: 10},
      ],
      marks: [
        {type: 'line', from: {data: 'rows'}, interactive: false, encode: {enter: at({stroke: {value: look.colors.accent}, strokeWidth: {value: 1}, opacity: {value: 0.6}})}},
        {type: 'symbol', from: {data: 'rows'}, interactive: false, encode: {enter: at({fill: {value: look.colors.accent}, size: {value: 18}})}},
      ],
    });
  }

  const all = {frontier, evolution, thresholds, overlay, multiple};
  return {figure: (name, data, look) => all[name](data, look)};
})();
