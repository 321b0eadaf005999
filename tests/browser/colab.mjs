// What a cell puts out on Colab, in a page that stands for Colab's, behind a proxy that takes TLS off and says nothing:
// node colab.mjs PORT CELL PORTRAIT SPEECH FOLDER; FOLDER holds key.pem and cert.pem. Prints one JSON object.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import path from 'node:path';

const { chromium } = createRequire(path.join(process.env.NODE_PATH || process.cwd(), 'x.js'))('playwright-core');
const [port, cell, portrait, speech, folder] = process.argv.slice(2);
const secret = { key: readFileSync(`${folder}/key.pem`), cert: readFileSync(`${folder}/cert.pem`) };
const serve = answer => new Promise(ready => {
  const server = https.createServer(secret, answer).listen(0, '127.0.0.1', () => ready(server.address().port));
});
const proxied = await serve((asked, answer) => {
  const told = http.request({ host: '127.0.0.1', port, path: asked.url, method: asked.method, headers: asked.headers },
    got => { answer.writeHead(got.statusCode, got.headers); got.pipe(answer); });
  told.on('error', () => answer.destroy());
  asked.pipe(told);
});
const notebook = await serve((_, answer) => {
  answer.writeHead(200, { 'content-type': 'text/html' });
  answer.end(`<div id="cell"></div><script>
    window.element = document.getElementById('cell');
    window.google = { colab: { kernel: { accessAllowed: true, proxyPort: async () => 'https://page.localhost:${proxied}/' } } };
  </script><script>${readFileSync(cell, 'utf8')}</script>`);
});

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });
const page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
page.setDefaultTimeout(120000);
await page.goto(`https://notebook.localhost:${notebook}/`, { waitUntil: 'commit' });
const frame = page.frameLocator('iframe');
await frame.locator('#go').waitFor();
await page.waitForTimeout(1500);
await frame.locator('#portrait input[type=file]').first().setInputFiles(portrait);
await frame.locator('#speech input[type=file]').first().setInputFiles(speech);
await frame.locator('#portrait img').first().waitFor();
await page.waitForTimeout(1500);
await frame.locator('#go').click();
await frame.locator('#status', { hasText: 'Done' }).waitFor();
await page.waitForTimeout(1500);
const video = await frame.locator('video').first().evaluate(v => ({ ready: v.readyState, seconds: v.duration }));
await page.screenshot({ path: `${folder}/colab.png` });
console.log(JSON.stringify(video));
await browser.close();
process.exit(0);
