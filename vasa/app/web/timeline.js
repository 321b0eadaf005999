const TRACKS = %TRACKS%, W = 1000, H = 220, PAD = 14;
let track = Object.keys(TRACKS)[0], part = 0, chosen = -1, held = false;
const $ = name => element.querySelector(name);
const state = () => { try { const v = JSON.parse(props.value); return v && v.tracks ? v : {seconds: 8, tracks: {}}; }
                      catch (_) { return {seconds: 8, tracks: {}}; } };
const save = s => { props.value = JSON.stringify(s); draw(); trigger('input'); trigger('change'); };
const keys = s => s.tracks[track] || [];
const x = (s, t) => PAD + (W - 2 * PAD) * t / s.seconds, t = (s, px) => (px - PAD) / (W - 2 * PAD) * s.seconds;
const y = v => { const [a, b] = TRACKS[track].range; return H - PAD - (H - 2 * PAD) * (v - a) / (b - a); };
const value = py => { const [a, b] = TRACKS[track].range; return a + (H - PAD - py) / (H - 2 * PAD) * (b - a); };
const limit = (v, i) => { const d = TRACKS[track], [a, b] = d.range, m = d.limits ? d.limits[i] : null;
  return Math.max(m ? -m : a, Math.min(m || b, Math.round(v * 100) / 100)); };
const line = (s, i) => {
  const k = keys(s); if (!k.length) return '';
  let d = `M ${PAD} ${y(k[0].value[i])}`;
  k.forEach((key, n) => {
    d += ` L ${x(s, key.time)} ${y(key.value[i])}`;
    const next = k[n + 1]; if (!next) return;
    if (key.interpolation === 'hold') d += ` L ${x(s, next.time)} ${y(key.value[i])}`;
    if (key.interpolation === 'smooth') { const m = (x(s, key.time) + x(s, next.time)) / 2;
      d += ` C ${m} ${y(key.value[i])} ${m} ${y(next.value[i])} ${x(s, next.time)} ${y(next.value[i])}`; }
  });
  return d + ` L ${W - PAD} ${y(k[k.length - 1].value[i])}`;
};
const draw = () => {
  const s = state(), d = TRACKS[track], plot = $('.plot'); if (!plot) return;
  const grid = [];
  const step = s.seconds > 60 ? 10 : s.seconds > 20 ? 5 : 1;
  for (let q = 0; q <= s.seconds + 1e-6; q += step)
    grid.push(`<line x1="${x(s, q)}" x2="${x(s, q)}" y1="0" y2="${H}" stroke="currentColor" opacity=".1"/>` +
      `<text x="${x(s, q) + 3}" y="${H - 3}" font-size="11" fill="currentColor" opacity=".5">${q} s</text>`);
  (s.envelope || []).forEach((v, n, all) => grid.push(
    `<rect x="${x(s, n / all.length * s.seconds)}" width="${(W - 2 * PAD) / all.length}" y="${H / 2 - v * 60}"` +
    ` height="${v * 120}" fill="currentColor" opacity=".09"/>`));
  grid.push(`<line x1="0" x2="${W}" y1="${y(d.neutral[part])}" y2="${y(d.neutral[part])}" stroke="currentColor"` +
    ' opacity=".3" stroke-dasharray="4 4"/>');
  const curves = d.parts.map((_, i) => i === part ? '' :
    `<path d="${line(s, i)}" fill="none" stroke="currentColor" opacity=".22" stroke-width="1.5"/>`);
  curves.push(`<path d="${line(s, part)}" fill="none" stroke="var(--primary-600)" stroke-width="2.5"/>`);
  const dots = keys(s).map((k, n) => `<circle data-n="${n}" cx="${x(s, k.time)}" cy="${y(k.value[part])}" r="8"` +
    ` fill="var(--primary-600)" stroke="${n === chosen ? 'currentColor' : 'none'}" stroke-width="3"/>`);
  plot.innerHTML = grid.join('') + curves.join('') + dots.join('');
  const k = keys(s)[chosen];
  $('.read').textContent = k ? `${k.time.toFixed(2)} s: ${k.value[part].toFixed(2)}${d.unit} ${d.parts[part]}` :
    `${keys(s).length} keys`;
  $('.kind').disabled = $('.drop').disabled = !k; if (k) $('.kind').value = k.interpolation;
};
const choose = () => {
  $('.track').innerHTML = Object.entries(TRACKS).map(([n, d]) => `<option value="${n}">${d.label}</option>`).join('');
  $('.track').value = track;
  const parts = TRACKS[track].parts;
  $('.part').innerHTML = parts.map((p, i) => `<option value="${i}">${p || 'value'}</option>`).join('');
  $('.part').value = part; $('.part').style.display = parts.length > 1 ? '' : 'none'; draw();
};
const spot = e => { const b = $('.plot').getBoundingClientRect();
  return [(e.clientX - b.left) / b.width * W, (e.clientY - b.top) / b.height * H]; };
const move = (s, when, v) => {
  const k = keys(s)[chosen], all = keys(s);
  const low = chosen > 0 ? all[chosen - 1].time + .04 : 0;
  const high = chosen < all.length - 1 ? all[chosen + 1].time - .04 : s.seconds;
  k.time = Math.max(low, Math.min(high, Math.round(when * 25) / 25)); k.value[part] = limit(v, part);
};
element.addEventListener('change', e => {
  if (e.target.matches('.track')) { track = e.target.value; part = 0; chosen = -1; choose(); }
  if (e.target.matches('.part')) { part = Number(e.target.value); draw(); }
  if (e.target.matches('.kind')) { const s = state(), k = keys(s)[chosen]; if (k) { k.interpolation = e.target.value; save(s); } }
});
const remove = () => { const s = state(); if (!keys(s)[chosen]) return;
  s.tracks[track].splice(chosen, 1); if (!s.tracks[track].length) delete s.tracks[track]; chosen = -1; save(s); };
element.addEventListener('click', e => { if (e.target.closest('.drop')) remove(); });
element.addEventListener('dblclick', e => {
  if (!e.target.closest('.plot')) return;
  const s = state(), [px, py] = spot(e), when = Math.max(0, Math.min(s.seconds, t(s, px)));
  const near = keys(s).filter(k => k.time <= when).pop() || keys(s)[0];
  const key = {time: Math.round(when * 25) / 25, value: near ? [...near.value] : [...TRACKS[track].neutral],
    interpolation: 'linear'};
  if (keys(s).some(k => Math.abs(k.time - key.time) < .03)) return;
  key.value[part] = limit(value(py), part);
  s.tracks[track] = [...keys(s), key].sort((a, b) => a.time - b.time); chosen = s.tracks[track].indexOf(key); save(s);
});
element.addEventListener('pointerdown', e => {
  const dot = e.target.closest('circle'); if (!dot) return;
  chosen = Number(dot.dataset.n); held = true; draw(); $('.plot').focus({preventScroll: true}); e.preventDefault();
});
let pending = null;
window.addEventListener('pointermove', e => {
  if (!held) return; pending = pending || state(); const [px, py] = spot(e);
  move(pending, t(pending, px), value(py)); props.value = JSON.stringify(pending); draw();
});
window.addEventListener('pointerup', () => { if (held && pending) save(pending); held = false; pending = null; });
element.addEventListener('keydown', e => {
  if (!e.target.closest('.plot')) return; const s = state(), k = keys(s)[chosen]; if (!k) return;
  const [a, b] = TRACKS[track].range, d = (b - a) / 60;
  const step = {ArrowLeft: [-.04, 0], ArrowRight: [.04, 0], ArrowUp: [0, d], ArrowDown: [0, -d]}[e.key];
  if (step) { e.preventDefault(); move(s, k.time + step[0], k.value[part] + step[1]); save(s); }
  if (e.key === 'Delete' || e.key === 'Backspace') { e.preventDefault(); remove(); }
});
watch('value', () => { if (!$('.track option')) choose(); else draw(); }); choose();
