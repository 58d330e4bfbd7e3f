// Draws the report from the data in the page. Texts only ever become text nodes.
'use strict';

(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const report = document.getElementById('report');
  const tip = document.getElementById('tip');
  const {number} = epoText;

  // element('p', {class: 'note'}, 'text', node, ...).
  function element(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== undefined && value !== null) node.setAttribute(name, value);
    }
    node.append(...children.filter(child => child !== null && child !== undefined));
    return node;
  }

  // A text of the model's: isolated, and with what cannot be seen named.
  function shown(text, attributes) {
    const parts = epoText.runs(text).map(run => (run.hidden ? element('span', {class: 'hidden-character'}, run.text) : run.text));
    return element('bdi', {dir: 'auto', ...attributes}, ...parts);
  }
  const prompt = text => shown(text, {class: 'prompt'});

  function section(id, title, ...children) {
    return element('section', {id, 'aria-labelledby': `${id}-title`}, element('h2', {id: `${id}-title`}, title), ...children);
  }

  // The tooltip: one for all, shown beside what has the pointer or the focus.

  let owner = null;

  function showTip(node, content) {
    hideTip();
    owner = node;
    tip.replaceChildren(...content);
    tip.hidden = false;
    if (node.setAttribute) node.setAttribute('aria-describedby', 'tip');
    placeTip();
  }

  function placeTip() {
    const box = owner.getBoundingClientRect();
    const {offsetWidth: width, offsetHeight: height} = tip;
    const left = Math.max(8, Math.min(box.left + box.width / 2 - width / 2, document.documentElement.clientWidth - width - 8));
    const above = box.top - height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above >= 8 ? above : Math.min(box.bottom + 8, Math.max(8, innerHeight - height - 8))}px`;
  }

  function hideTip(node) {
    if (node && node !== owner) return;
    if (owner && owner.removeAttribute) owner.removeAttribute('aria-describedby');
    owner = null;
    tip.hidden = true;
  }

  addEventListener('keydown', event => { if (event.key === 'Escape') hideTip(); });
  // What the keyboard moves to is scrolled into view; the tooltip goes with it.
  addEventListener('scroll', () => { if (owner && owner === document.activeElement) placeTip(); else hideTip(); }, {passive: true, capture: true});

  function pointTip(point, name) {
    return [
      ...(name ? [element('p', {class: 'note'}, shown(name))] : []), element('p', {}, prompt(point.text)),
      element('p', {}, `target ${number(point.target)}, cross-entropy ${number(point.cross_entropy)}`),
    ];
  }

  // Figures

  const colors = {
    ink: 'var(--ink)', muted: 'var(--muted)', rule: 'var(--rule)', accent: 'var(--accent)',
    sequence: [1, 2, 3, 4, 5].map(i => `var(--s${i})`), categories: [1, 2, 3, 4, 5, 6, 7, 8].map(i => `var(--c${i})`),
  };
  const font = getComputedStyle(document.documentElement).getPropertyValue('--font').trim();

  // Draws into `node` at its width, and again when that changes. `pointOf` gives the tooltip of a mark's value.
  function plot(node, name, values, height, pointOf) {
    let drawn = 0, view = null;
    function draw() {
      const width = Math.floor(node.clientWidth);
      if (!width || width === drawn) return;
      drawn = width;
      if (view) view.finalize();
      const spec = epoFigures.figure(name, values, {width, height: height(width), font, colors});
      view = new vega.View(vega.parse(spec), {renderer: 'svg', hover: false, logLevel: vega.Warn});
      view.tooltip((handler, event, item, value) => {
        if (value === null || value === undefined || !pointOf) return hideTip();
        showTip({getBoundingClientRect: () => new DOMRect(event.clientX - 6, event.clientY - 6, 12, 12)}, pointOf(value));
      });
      view.initialize(node).run();
    }
    new ResizeObserver(() => requestAnimationFrame(draw)).observe(node);
    return draw;
  }

  const wide = width => (width < 560 ? Math.round(width * 1.05) : Math.round(Math.min(520, width * 0.5)));
  const low = width => (width < 560 ? Math.round(width * 0.9) : Math.round(Math.min(400, width * 0.38)));

  function figure(name, values, height, caption, pointOf) {
    const node = element('div', {class: 'plot', id: `figure-${name}`});
    plot(node, name, values, height, pointOf);
    return element('figure', {}, node, element('figcaption', {class: 'note'}, caption));
  }

  // A table that its headers sort; on a phone each row's prompt has a line of its own, hence the roles, which a browser then forgets. columns: [{title, class, value(row), cell(row), first: 'ascending'|'descending'}].
  function table(caption, columns, rows, sorted) {
    const body = element('tbody', {role: 'rowgroup'});
    const heads = columns.map((column, index) => {
      const button = element('button', {type: 'button'}, column.title);
      const head = element('th', {role: 'columnheader', scope: 'col', class: column.class, 'aria-sort': 'none'}, button);
      button.addEventListener('click', () => {
        const now = heads[index].getAttribute('aria-sort');
        sort(index, now === 'ascending' ? 'descending' : now === 'descending' ? 'ascending' : column.first || 'ascending');
      });
      return head;
    });
    const lines = rows.map(row => ({row, line: element('tr', {role: 'row'}, ...columns.map(c => element('td', {role: 'cell', class: c.class}, c.cell(row))))}));
    function sort(index, order) {
      heads.forEach((head, i) => head.setAttribute('aria-sort', i === index ? order : 'none'));
      const sign = order === 'ascending' ? 1 : -1;
      const {value} = columns[index];
      lines.sort((a, b) => {
        const x = value(a.row), y = value(b.row);
        if (x === null || y === null) return (x === null) - (y === null);  // What has no value comes last.
        return sign * (x < y ? -1 : x > y ? 1 : 0);
      });
      body.append(...lines.map(l => l.line));
    }
    sort(sorted, columns[sorted].first || 'ascending');
    return element('div', {class: 'scroll', tabindex: '-1'},
      element('table', {role: 'table', 'aria-label': caption}, element('thead', {role: 'rowgroup'}, element('tr', {role: 'row'}, ...heads)), body));
  }

  const scoreColumns = [
    {title: 'Target', class: 'number', value: p => p.target, cell: p => number(p.target), first: 'descending'},
    {title: 'Cross-entropy', class: 'number', value: p => p.cross_entropy, cell: p => number(p.cross_entropy)},
  ];
  const promptColumn = {title: 'Prompt', class: 'own-line', value: p => p.text, cell: p => prompt(p.text)};
  const textColumns = points => (points.every(p => p.round_trips) ? [] :
    [{title: 'As text', value: p => (p.round_trips ? 'same' : 'differs'), cell: p => (p.round_trips ? 'same' : 'differs')}]);
  const textNote = points => (points.every(p => p.round_trips) ? null :
    element('p', {class: 'note'}, 'As text: whether the prompt, given as text, is read as the same tokens.'));

  // Token strips

  function substituteRow(substitute, kind) {
    const [text, target, crossEntropy] = substitute;
    return element('tr', {class: kind}, element('td', {}, kind), element('td', {}, prompt(text)),
      element('td', {class: 'number'}, number(target)), element('td', {class: 'number'}, number(crossEntropy)));
  }

  function tokenTip(token) {
    const head = ['', 'instead', 'target', 'cross-entropy'];
    return [
      element('p', {}, prompt(token.text), ` \u2002drop to the best ${number(token.best)}, to the worst ${number(token.worst)}`),
      element('table', {}, element('thead', {}, element('tr', {}, ...head.map((t, i) => element('th', {class: i > 1 ? 'number' : null}, t)))),
        element('tbody', {}, ...token.top.map((s, i) => substituteRow(s, i ? 'then' : 'best')),
          token.bottom ? substituteRow(token.bottom, 'worst') : null)),
    ];
  }

  function tokenLabel(text) {
    const node = shown(text);
    // Leading spaces belong to most tokens and would be lost to the eye.
    if (text.startsWith(' ')) node.replaceChildren(element('span', {class: 'space'}, '\u00b7'), ...shown(text.slice(1)).childNodes);
    return node;
  }

  function strip(point, attribution, scale) {
    const tokens = attribution.tokens.map(token => {
      const bar = element('span', {class: token.best < 0 ? 'bar below' : 'bar'});
      bar.style.height = `${Math.abs(token.best || 0) * scale.pixels}px`;
      const share = scale.worst > 0 ? Math.max(0, Math.min(1, token.worst / scale.worst)) : 0;
      bar.style.backgroundColor = `color-mix(in oklab, var(--high) ${Math.round(share * 100)}%, var(--low))`;
      const button = element('button', {type: 'button', class: 'token',
        'aria-label': `${epoText.runs(token.text).map(r => r.text).join('')}: drop to the best ${number(token.best)}, to the worst ${number(token.worst)}`},
        element('span', {class: 'bars'}, bar), tokenLabel(token.text));
      const show = () => showTip(button, tokenTip(token));
      button.addEventListener('mouseenter', show);
      button.addEventListener('focus', show);
      button.addEventListener('click', show);
      button.addEventListener('mouseleave', () => { if (document.activeElement !== button) hideTip(button); });
      button.addEventListener('blur', () => hideTip(button));
      return element('li', {}, button);
    });
    return element('li', {class: 'strip'},
      element('p', {class: 'strip-scores'}, element('span', {}, 'target ', element('b', {}, number(point.target))),
        element('span', {}, 'cross-entropy ', element('b', {}, number(point.cross_entropy)))),
      element('ol', {class: 'tokens'}, ...tokens));
  }

  function strips() {
    const all = data.attribution.filter(Boolean).flatMap(a => a.tokens);
    const tallest = Math.max(0, ...all.map(t => t.best || 0));
    const deepest = Math.max(0, ...all.map(t => -(t.best || 0)));
    const worst = Math.max(0, ...all.map(t => t.worst || 0));
    const pixels = 84 / Math.max(tallest + deepest, 1e-12);
    const list = element('ol', {class: 'strips'},
      ...data.frontier.map((point, i) => (data.attribution[i] ? strip(point, data.attribution[i], {pixels, worst}) : null)));
    list.style.setProperty('--up', `${Math.max(2, Math.ceil(tallest * pixels))}px`);
    list.style.setProperty('--down', `${Math.ceil(deepest * pixels)}px`);
    const missing = data.frontier.length - data.attribution.filter(Boolean).length;
    return section('tokens', 'What each token is worth',
      element('p', {class: 'lede'}, 'One bar a token. Its height is what the target loses when the token gives way to the best substitute: what no other token ' +
        'makes up for. Its colour is the loss to the worst. Hover, focus or tap a token for the substitutes.'),
      element('p', {class: 'scale'},
        element('span', {}, element('span', {class: 'tall'}), `height: drop to the best, ${number(tallest)} at most`),
        deepest > 0 ? element('span', {}, element('span', {class: 'dashed'}), `below the line: a substitute does better, by up to ${number(deepest)}`) : null,
        element('span', {}, 'colour: drop to the worst, 0', element('span', {class: 'ramp'}), number(worst))),
      missing ? element('p', {class: 'note'}, `${missing} of the frontier\u2019s prompts gave way to better ones before they were attributed.`) : null,
      list);
  }

  // What all reports have

  function facts(rows) {
    return element('dl', {class: 'facts'}, ...rows.map(([name, value]) => element('div', {}, element('dt', {}, name), element('dd', {}, shown(value)))));
  }

  function key(rows) {
    return element('dl', {class: 'key'}, ...rows.map(([name, value]) => element('div', {}, element('dt', {}, name), element('dd', {}, value))));
  }

  const notices = () => data.notices.map(([strong, text]) => element('p', {class: 'notice', role: 'note'}, element('strong', {}, strong), ' ', shown(text)));

  function header(eyebrow, title, rows) {
    return element('header', {}, element('p', {class: 'eyebrow'}, shown(eyebrow)), element('h1', {}, shown(title)), ...notices(), rows.length ? key(rows) : null);
  }

  const footer = () => element('footer', {}, `Made by epo ${data.version} on ${data.made}. Figures by Vega.`);

  const best = points => points.reduce((a, p) => (a === null || p.target > a ? p.target : a), null);
  const least = points => points.reduce((a, p) => (p.cross_entropy !== null && (a === null || p.cross_entropy < a) ? p.cross_entropy : a), null);

  function jobPage() {
    const points = data.frontier;
    const pages = [
      header(`EPO search ${data.id}`, data.title, [
        ['prompts on the frontier', String(points.length)], ['highest target', number(best(points))],
        ['lowest cross-entropy', number(least(points))],
        ['iterations', data.completed === data.iterations ? String(data.completed) : `${data.completed} of ${data.iterations}`],
      ]),
      section('frontier', 'The frontier',
        element('p', {class: 'lede'}, 'The best prompts that the search found: none of all that it scored has both a higher target and a lower cross-entropy. The target is what was searched for; ' +
          'a low cross-entropy is a prompt that the model itself finds likely.'),
        figure('frontier', data, wide, 'Labels are left out where there is no room; hover over a point, or see the table. Small dots: further prompts that no other beats in both scores.',
          ({index}) => pointTip(points[index])),
        table('The frontier', [
          {title: '#', class: 'number rank', value: p => p.index, cell: p => String(p.index)}, ...scoreColumns, ...textColumns(points), promptColumn,
        ], points.map((p, index) => ({...p, index})), 2), textNote(points)),
    ];
    if (data.attribution) pages.push(strips());
    else if (data.attribution_note) pages.push(section('tokens', 'What each token is worth', element('p', {class: 'lede'}, shown(data.attribution_note))));
    pages.push(
      section('evolution', 'How the frontier moved', figure('evolution', data, low, 'The frontier of everything scored until then.')),
      section('thresholds', 'The best target under a ceiling on cross-entropy',
        figure('thresholds', data, low, 'Of all prompts scored so far. ' + (data.restarts.length ? 'Dotted lines: restarts, at which all slots take one survivor.' : 'There were no restarts.'))),
      section('facts', 'Job and model', facts(data.facts)));
    return pages;
  }

  function comparePage() {
    const points = data.jobs.flatMap((job, k) => job.frontier.map(p => ({...p, job, k})));
    const swatch = k => { const node = element('span', {class: 'swatch', 'aria-hidden': 'true'}); node.style.background = `var(--c${k + 1})`; return node; };
    return [
      header('EPO searches compared', data.title, []),
      section('frontier', 'The frontiers',
        figure('overlay', data, wide, 'Labels are left out where there is no room; hover over a point, or see the table.',
          ({series, index}) => pointTip(data.jobs.find(job => job.name === series).frontier[index], series))),
      section('prompts', 'All prompts', table('The frontiers of all jobs', [
        ...scoreColumns, {title: 'Job', value: p => p.job.name, cell: p => element('span', {}, swatch(p.k), shown(p.job.name))}, ...textColumns(points), promptColumn,
      ], points, 1), textNote(points)),
      section('jobs', 'The jobs', ...data.jobs.map((job, k) => element('div', {class: 'objective'}, element('h3', {}, swatch(k), shown(job.name)), facts(job.facts)))),
    ];
  }

  function sweepPage() {
    const all = data.objectives.flatMap(o => o.points).filter(p => p.cross_entropy !== null && p.target !== null).map(p => ({x: p.cross_entropy, y: p.target}));
    const draws = new Map();
    const visible = new IntersectionObserver(entries => {
      for (const entry of entries) {
        if (entry.isIntersecting) { visible.unobserve(entry.target); draws.get(entry.target)(); }
      }
    }, {rootMargin: '600px'});
    const anchor = o => `objective-${o.index}`;
    const cards = data.objectives.map(o => {
      const node = element('div', {class: 'plot'});
      if (o.points.length) {
        draws.set(node, () => plot(node, 'multiple', {name: o.name, points: o.points, bounds: all}, () => 170)());
        visible.observe(node);
      } else {
        node.append(element('p', {class: 'note'}, 'nothing scored yet'));
      }
      const top = o.points.reduce((a, p) => (a === null || p.target > a.target ? p : a), null);
      return element('li', {}, element('h3', {}, o.points.length ? element('a', {href: `#${anchor(o)}`}, shown(o.name)) : shown(o.name)), node,
        element('p', {class: 'note'}, o.ended < data.seeds ? `${o.ended} of ${data.seeds} jobs ended. ` : '', top ? `highest ${number(top.target)}: ` : '', top ? prompt(top.text) : null));
    });
    addEventListener('beforeprint', () => { for (const [node, draw] of draws) { visible.unobserve(node); draw(); } });
    const jobCell = p => (data.links[p.job] ? element('a', {href: data.links[p.job]}, p.job) : p.job);
    const linked = Object.keys(data.links).length;
    return [
      header(`EPO sweep ${data.id}`, data.title, data.key),
      section('objectives', 'Each objective\u2019s frontier',
        element('p', {class: 'lede'}, 'Target (upwards) against cross-entropy (to the right), on the same axes for all, over all seeds together.'),
        element('ul', {class: 'grid'}, ...cards)),
      section('prompts', 'The prompts',
        element('p', {class: 'note'}, linked ? 'Jobs with a report beside this file are links to it.' : 'Jobs are links when their reports (epo report JOB --out JOB.html) lie beside this file as it is made.'),
        ...data.objectives.filter(o => o.points.length).map(o => element('div', {class: 'objective', id: anchor(o)},
          element('h3', {}, shown(o.name), element('a', {class: 'back', href: '#objectives'}, 'all objectives')),
          table(`The frontier of ${o.name}`, [
            ...scoreColumns, {title: 'Seed', class: 'number', value: p => Number(p.seed), cell: p => String(p.seed)},
            {title: 'Job', value: p => p.job, cell: jobCell}, promptColumn,
          ], o.points, 1)))),
      section('facts', 'Sweep and model', facts(data.facts)),
    ];
  }

  const pages = {job: jobPage, compare: comparePage, sweep: sweepPage};
  report.replaceChildren(...pages[data.kind](), footer());
})();
