// The page in a real browser: node suite.mjs URL PORTRAIT SPEECH FOLDER [only]; FOLDER/long.wav is what gets stopped. Prints one JSON object of findings.
import { createRequire } from 'node:module';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const { chromium } = createRequire(path.join(process.env.NODE_PATH || process.cwd(), 'x.js'))('playwright-core');
const [url, portrait, speech, folder, only] = process.argv.slice(2);
const findings = {};
const launch = (...more) => chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ['--no-sandbox', '--autoplay-policy=no-user-gesture-required', '--use-fake-ui-for-media-stream',
    '--use-fake-device-for-media-stream', ...more],
});
const browser = await launch();

const opened = [];
const open = async (options = {}, by = browser) => {
  const context = await by.newContext({ viewport: { width: 1440, height: 1000 }, acceptDownloads: true, ...options });
  opened.push(context);
  const page = await context.newPage();
  page.setDefaultTimeout(120000);
  page.external = [];
  page.problems = [];
  page.on('request', r => { if (!r.url().startsWith(url) && !/^(data|blob):/.test(r.url())) page.external.push(r.url()); });
  page.on('pageerror', e => page.problems.push(String(e)));
  if (by !== browser) await page.addInitScript(listen);
  await page.goto(url, { waitUntil: 'load' });
  await page.waitForSelector('#go');
  await page.waitForTimeout(1500);
  return page;
};
// In the page: notes when the microphone becomes loud. The server paints frames white whose own sound is loud.
const listen = () => {
  window.heard = [];
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async wanted => {
    const stream = await ask(wanted), context = new AudioContext(), analyser = context.createAnalyser();
    analyser.fftSize = 256; context.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(256); let loud = 0;
    setInterval(() => { analyser.getFloatTimeDomainData(samples);
      const now = performance.now(); if (Math.max(...samples.map(Math.abs)) < 0.05) return;
      if (now - loud > 500) window.heard.push(now); loud = now; }, 5);
    return stream;
  };
};
// In the page: notes when the video turns white.
const watch = () => {
  window.seen = [];
  const video = document.querySelector('#live-stage video'), canvas = document.createElement('canvas');
  canvas.width = canvas.height = 8; const pen = canvas.getContext('2d', { willReadFrequently: true }); let white = true;
  const look = now => { pen.drawImage(video, 0, 0, 8, 8);
    const light = pen.getImageData(0, 0, 8, 8).data.reduce((a, b) => a + b) / 256, is = light > 235;
    if (is && !white) window.seen.push(now); white = is; video.requestVideoFrameCallback(look); };
  video.requestVideoFrameCallback(look);
};
// In the page: uploads the files and asks for a video per seed, all at once; what came of each.
const ask = async ([files, seeds]) => {
  const form = new FormData();
  for (const [name, data] of files) form.append('files', new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], name));
  const paths = await (await fetch('gradio_api/upload', { method: 'POST', body: form })).json();
  const [picture, sound] = paths.map(path => ({ path, meta: { _type: 'gradio.FileData' } }));
  return Promise.all(seeds.map(async seed => {
    const data = [picture, sound, JSON.stringify({ steps: 2, seed }), 'none', 0, 0, false];
    const asked = await fetch('gradio_api/call/animate_file', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ data }) });
    const answer = await asked.json();
    if (!asked.ok) return { seed, said: JSON.stringify(answer) };
    const said = await (await fetch('gradio_api/call/animate_file/' + answer.event_id)).text();
    const [, result] = said.match(/event: complete\ndata: (.*)/) || [];
    if (!result) return { seed, said };
    const bytes = new Uint8Array(await (await fetch(JSON.parse(result)[0].url)).arrayBuffer());
    return { seed, said: 'done', data: btoa(Array.from(bytes, b => String.fromCharCode(b)).join('')) };
  }));
};
const call = async page => {
  await page.getByRole('tab', { name: 'Live' }).click();
  await page.locator('#live-portrait input[type=file]').first().setInputFiles(portrait);
  await page.waitForSelector('#live-portrait img');
  await page.waitForTimeout(1500);
  await page.click('#prepare');
  await page.waitForFunction(() => document.querySelector('#live-words').innerText.includes('Ready'));
};
const give = async (page, sound = speech) => {
  await page.locator('#portrait input[type=file]').first().setInputFiles(portrait);
  await page.locator('#speech input[type=file]').first().setInputFiles(sound);
  await page.waitForFunction(() => document.querySelector('#portrait img') && document.querySelector('#speech .waveform-container, #speech #waveform, #speech canvas, #speech [data-testid=waveform-x]') !== undefined);
  await page.waitForTimeout(2500);
};
const said = page => page.locator('#status').innerText();
const save = async (page, name) => {
  await page.waitForFunction(() => { const a = document.querySelector('#download'); return a && !a.disabled && !a.className.includes('disabled'); });
  const waiting = page.waitForEvent('download');
  await page.click('#download');
  const file = path.join(folder, name);
  await (await waiting).saveAs(file);
  return file;
};

const scenes = {
  async missing() {
    const page = await open();
    await page.click('#go');
    await page.waitForFunction(() => document.body.innerText.includes('Choose a portrait first'));
    const at = await page.evaluate(() => ['#portrait', '#speech'].map(box => document.querySelector(box).closest('.block, .form, div').parentElement.innerText));
    return { portrait: at[0].includes('Choose a portrait first'), speech: (await page.locator('body').innerText()).includes('Choose speech first'),
      external: page.external, problems: page.problems };
  },
  async wrong() {
    const page = await open();
    await page.locator('#portrait input[type=file]').first().setInputFiles({ name: '<b>a.png', mimeType: 'image/png', buffer: Buffer.from('no picture') });
    await page.waitForFunction(() => document.querySelector('#found') && /not a readable image/i.test(document.querySelector('#found').innerText), null, { timeout: 60000 }).catch(() => {});
    return { found: await page.evaluate(() => document.querySelector('#found')?.innerText || '') };
  },
  async animate() {
    const page = await open();
    await give(page);
    const box = await page.locator('#video').boundingBox();
    const clicked = Date.now();
    await page.click('#go');
    await page.waitForFunction(() => { const v = document.querySelector('#video video'); return v && v.currentTime > 0.05; });
    const playing = Date.now() - clicked;
    const early = await said(page);
    const during = await page.locator('#video').boundingBox();
    await page.waitForFunction(() => document.querySelector('#status').innerText.includes('Done'));
    const made = Date.now() - clicked;
    await page.waitForFunction(() => { const v = document.querySelector('#video video'); return v.ended || v.paused || v.currentTime > 7; });
    const seconds = await page.evaluate(() => document.querySelector('#video video').duration);
    return { playing, made, early, seconds, jump: Math.abs(box.y - during.y) + Math.abs(box.height - during.height), file: await save(page, 'whole.mp4'),
      external: page.external, problems: page.problems };
  },
  async stop() {
    const page = await open();
    await give(page, path.join(folder, 'long.wav'));
    await page.click('#go');
    await page.waitForFunction(() => /s made/.test(document.querySelector('#status').innerText));
    await page.click('#stop');
    await page.waitForFunction(() => document.querySelector('#status').innerText.includes('Stopped'));
    return { said: await said(page), file: await save(page, 'stopped.mp4') };
  },
  async phone() {
    const page = await open({ viewport: { width: 390, height: 844 }, isMobile: true, deviceScaleFactor: 2 });
    const width = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    await page.screenshot({ path: path.join(folder, 'phone.png'), fullPage: true });
    return { width };
  },
  async dark() {
    const page = await open({ colorScheme: 'dark' });
    const light = await page.evaluate(() => { const c = getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g).map(Number); return (c[0] + c[1] + c[2]) / 3; });
    await page.screenshot({ path: path.join(folder, 'dark.png'), fullPage: true });
    return { light };
  },
  async two() {
    const pages = await Promise.all([open(), open()]);
    await Promise.all(pages.map(page => give(page)));
    const names = ['first.mp4', 'second.mp4'];
    await pages[1].getByText('Head, blinking and sampling').click();
    await pages[1].getByLabel('Seed').fill('7');
    await pages[1].getByLabel('Seed').press('Tab');
    await Promise.all(pages.map(page => page.click('#go')));
    return { files: await Promise.all(pages.map(async (page, i) => {
      await page.waitForFunction(() => document.querySelector('#status').innerText.includes('Done'));
      return save(page, names[i]);
    })) };
  },
  async still() {
    const page = await open();
    await page.getByRole('tab', { name: 'Edit' }).click();
    await page.locator('#edit-portrait input[type=file]').first().setInputFiles(portrait);
    await page.waitForSelector('#still img');
    const before = await page.locator('#still img').getAttribute('src');
    await page.locator('#still-jaw input[type=number]').fill('0.9');
    await page.locator('#still-jaw input[type=number]').press('Tab');
    await page.waitForFunction(old => document.querySelector('#still img').src !== old && !document.querySelector('#still img').src.endsWith(old), before);
    return { moved: true };
  },
  async gaze() {
    const page = await open();
    const pad = await page.locator('#gaze .pad').boundingBox();
    await page.mouse.click(pad.x + pad.width * 0.75, pad.y + pad.height * 0.5);
    const words = await page.locator('#gaze .words').innerText();
    await page.locator('#gaze .pad').focus();
    await page.keyboard.press('ArrowUp');
    const after = await page.locator('#gaze .words').innerText();
    await page.getByText('Controls as JSON').click();
    await page.getByText('From the widgets').click();
    await page.waitForFunction(() => /"gaze"/.test(document.querySelector('#controls-json').innerText));
    const json = await page.locator('#controls-json').innerText();
    await page.getByText('Timeline: controls').click();
    const plot = page.locator('#timeline .plot'), { width, height } = await plot.boundingBox();
    await plot.dblclick({ position: { x: width * 0.5, y: height * 0.25 } }); // waits until the fold has opened
    await page.waitForSelector('#timeline circle');
    const keys = await page.locator('#timeline circle').count();
    return { words, after, json: json.slice(0, 200), keys };
  },
  async live() {
    const page = await open({ permissions: ['microphone'] });
    await call(page);
    const clicked = Date.now();
    await page.click('#live-stage .start');
    await page.waitForFunction(() => { const v = document.querySelector('#live-stage video'); return v && v.videoWidth > 0 && v.currentTime > 0; });
    const first = Date.now() - clicked;
    await page.waitForTimeout(6000);
    const words = await page.locator('#live-stage .state').innerText();
    const quality = await page.evaluate(() => { const v = document.querySelector('#live-stage video'); return [v.videoWidth, v.getVideoPlaybackQuality().totalVideoFrames]; });
    await page.click('#live-stage .end');
    return { first, words, quality, problems: page.problems };
  },
  async reaction() {
    const other = await launch(`--use-file-for-fake-audio-capture=${path.join(folder, 'bursts.wav')}`);
    const page = await open({ permissions: ['microphone'] }, other);
    await call(page);
    await page.click('#live-stage .start');
    await page.waitForFunction(() => { const v = document.querySelector('#live-stage video'); return v && v.videoWidth > 0 && v.currentTime > 0; });
    await page.evaluate(watch);
    await page.waitForTimeout(60000);
    const [heard, seen] = await page.evaluate(() => [window.heard, window.seen]);
    const words = await page.locator('#live-stage .state').innerText();
    await other.close();
    // the first seconds of a call are not what it is like
    const delays = heard.filter(t => t > seen[0] + 3000).map(t => seen.find(s => s > t) - t).filter(d => d < 2900).sort((a, b) => a - b);
    const at = share => Math.round(delays[Math.min(delays.length - 1, Math.floor(share * delays.length))]);
    return { count: delays.length, p50: at(0.5), p95: at(0.95), words };
  },
  async again() {
    const page = await open();
    await give(page, path.join(folder, 'long.wav'));
    await page.click('#go');
    await page.waitForFunction(() => /s made/.test(document.querySelector('#status').innerText));
    const other = await page.context().newPage();
    await page.close();
    await other.waitForTimeout(5000);
    await other.goto(url);
    await other.waitForFunction(() => document.querySelector('#status')?.innerText.includes('still here'));
    return { file: await save(other, 'again.mp4') };
  },
  async pieces() {
    const page = await open({ permissions: ['microphone'] });
    await call(page);
    await page.route('**/rtc/offer', route => route.fulfill({ status: 404, body: '{}' }));
    await page.click('#live-stage .start');
    await page.waitForFunction(() => document.querySelector('#live-note')?.innerText.includes('No direct connection'));
    const clicked = Date.now();
    await page.locator('#live-pieces button', { hasText: 'Record' }).click();
    await page.waitForFunction(() => { const v = document.querySelector('#live-pieces video'); return v && v.currentTime > 0.05; });
    const first = Date.now() - clicked;
    await page.waitForFunction(() => document.querySelector('#live-figures').innerText.includes('frames a second'));
    const words = await page.locator('#live-figures').innerText();
    await page.screenshot({ path: path.join(folder, 'pieces.png') });
    return { first, words, note: await page.locator('#live-note').innerText(), problems: page.problems };
  },
  // twenty requests at once: two pages click, and ask for nine more videos each, as programs do
  async crowd() {
    const pages = await Promise.all([open(), open()]);
    await Promise.all(pages.map(page => give(page, path.join(folder, 'short.wav'))));
    const files = [portrait, path.join(folder, 'short.wav')].map(file => [path.basename(file), readFileSync(file).toString('base64')]);
    await Promise.all(pages.map(page => page.click('#go')));
    const asked = await Promise.all(pages.map((page, i) => page.evaluate(ask, [files, Array.from({ length: 9 }, (_, n) => 1 + 9 * i + n)])));
    const videos = asked.flat().map(({ seed, said, data }) => {
      const file = path.join(folder, `crowd-${seed}.mp4`);
      if (data) writeFileSync(file, Buffer.from(data, 'base64'));
      return { seed, said, file: data ? file : null };
    });
    const clicks = await Promise.all(pages.map(async page => {
      const ended = await page.waitForFunction(() => /Done/.test(document.querySelector('#status').innerText) ? 'done'
        : document.querySelector('.toast-body, [data-testid=toast-body]')?.innerText);
      return ended.jsonValue();
    }));
    return { videos, clicks };
  },
  // the last: what still runs when all pages are closed
  async leave() {
    const caller = await open({ permissions: ['microphone'] }), maker = await open();
    await call(caller);
    await caller.click('#live-stage .start');
    await caller.waitForFunction(() => document.querySelector('#live-stage video')?.currentTime > 0);
    await give(maker, path.join(folder, 'long.wav'));
    await maker.click('#go');
    await maker.waitForFunction(() => /s made/.test(document.querySelector('#status').innerText));
    return { running: true };
  },
  async clip() {
    const page = await open();
    await give(page);
    await page.hover('#speech');
    const hint = await page.evaluate(() => document.querySelector('#speech').title);
    await page.click('#go');
    await page.waitForFunction(() => document.querySelector('#status').innerText.includes('Done'));
    await page.getByRole('tab', { name: 'Inspect' }).click();
    await page.click('#take-clip');
    await page.waitForTimeout(2500);
    await page.click('#look');
    await page.waitForFunction(() => document.querySelector('#report').innerText.includes('C2PA'));
    await page.waitForSelector('#seen img');
    return { hint, report: await page.locator('#report').innerText(), problems: page.problems };
  },
};
for (const [name, scene] of Object.entries(scenes)) {
  if (only && !only.split(',').includes(name)) continue;
  try { findings[name] = await scene(); } catch (error) { findings[name] = { error: String(error).slice(0, 400) }; }
  // a call or a video that plays on would slow the next scene down
  await Promise.all(opened.splice(0).map(context => context.close().catch(() => {})));
}
await browser.close();
console.log(JSON.stringify(findings));
