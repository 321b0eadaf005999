// The page shows the viewer's side: a dot to the right is a gaze to the right of the picture, negative yaw.
const limit = %LIMIT%;
const read = () => { try { const v = JSON.parse(props.value); return [Number(v[0]) || 0, Number(v[1]) || 0]; }
                     catch (_) { return [0, 0]; } };
const show = () => {
  const [yaw, pitch] = read(), dot = element.querySelector('.dot');
  if (!dot) return;
  dot.style.left = (50 - 50 * yaw / limit) + '%'; dot.style.top = (50 + 50 * pitch / limit) + '%';
  element.querySelector('.pad').setAttribute('aria-valuetext', yaw + ', ' + pitch);
  const side = Math.abs(yaw) < .5 ? '' : Math.abs(yaw).toFixed(0) + '° ' + (yaw > 0 ? 'left' : 'right');
  const height = Math.abs(pitch) < .5 ? '' : Math.abs(pitch).toFixed(0) + '° ' + (pitch > 0 ? 'down' : 'up');
  element.querySelector('.words').textContent = [side, height].filter(Boolean).join(', ') || 'into the camera';
};
const put = (yaw, pitch) => {
  const clip = v => Math.max(-limit, Math.min(limit, Math.round(v * 2) / 2));
  props.value = JSON.stringify([clip(yaw), clip(pitch)]); show(); trigger('input'); trigger('change'); setTimeout(show);
};
const at = event => {
  const box = element.querySelector('.pad').getBoundingClientRect();
  put((.5 - (event.clientX - box.left) / box.width) * 2 * limit,
      ((event.clientY - box.top) / box.height - .5) * 2 * limit);
};
let held = false;
element.addEventListener('pointerdown', e => { if (e.target.closest('.pad')) { held = true; at(e); } });
window.addEventListener('pointermove', e => { if (held) at(e); });
window.addEventListener('pointerup', () => { held = false; });
element.addEventListener('click', e => { if (e.target.closest('.centre')) put(0, 0); });
element.addEventListener('keydown', e => {
  const move = {ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[e.key];
  if (!move || !e.target.closest('.pad')) return;
  e.preventDefault(); const [yaw, pitch] = read(); put(yaw + move[0], pitch + move[1]);
});
watch('value', show); show();
