// ComfyUI's editor in a real browser: node editor.mjs URL FOLDER NAME...; opens each of the pack's templates by its link,
// waits until it is drawn, presses Run where no node is red, and keeps FOLDER/NAME.png. Prints one JSON object of findings.
import { createRequire } from 'node:module';
import path from 'node:path';

const find = createRequire(path.join(process.env.NODE_PATH || process.cwd(), 'x.js'));
const { chromium } = find(process.env.PLAYWRIGHT_CORE || 'playwright-core');
const [url, folder, ...names] = process.argv.slice(2);
const findings = {};
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'],
});

const drawn = () => {
  const nodes = window.app?.graph?.nodes ?? [], portraits = nodes.filter(node => node.type === 'VASA_LoadPortrait');
  const opened = nodes.some(node => node.type === 'VASA_LoadModel'); // before it, the editor shows a graph of its own
  return opened && app.canvas.visible_nodes?.length === nodes.length
    && portraits.every(node => node.imgs?.[0]?.naturalWidth)
    && [...document.querySelectorAll('[data-node-id] img')].every(one => one.complete)
    && [...document.querySelectorAll('audio, [data-node-id] video')].every(one => one.readyState || one.error);
};
const look = () => {
  const nodes = app.graph.nodes, speech = nodes.find(node => node.type === 'VASA_LoadSpeech');
  const player = speech?.widgets.find(one => one.name === 'audioUI').element;
  return {
    red: nodes.filter(node => node.has_errors || !(node.type in LiteGraph.registered_node_types)).map(node => node.type),
    dialogs: [...document.querySelectorAll('[role=dialog], dialog[open]')].map(one => one.innerText),
    titles: Object.fromEntries(nodes.map(node => [node.type, node.title])),
    elements: document.querySelectorAll('[data-node-id]').length,
    nodes: nodes.length,
    link: app.canvas.constructor.link_type_colors.VASA_MOTION,
    sound: player?.src ?? null,
    seconds: (document.querySelector('[data-node-id] audio') ?? player)?.duration ?? null,
    pictures: [...document.querySelectorAll('[data-node-id] img')].map(one => one.naturalWidth), // of HTML nodes
    videos: [...document.querySelectorAll('[data-node-id] video')].map(one => one.videoWidth),
    other: app.api.apiURL('/view?filename=portrait.png&type=input'),
  };
};
// Widths of the thumbnails from which an HTML node lets one choose a portrait.
const thumbnails = async page => {
  const button = page.locator('[data-node-id] button', { hasText: 'portrait.png' }).first();
  if (!(await button.count())) return [];
  await button.click();
  const widths = () => [...document.querySelectorAll('img[alt$="[sample]"]')].map(one => one.naturalWidth);
  const there = widths => widths.length && widths.every(Boolean);
  await page.waitForFunction(`(${there})((${widths})())`, null, { timeout: 10000 }).catch(() => {});
  return page.evaluate(widths);
};

for (const name of names) {
  const page = await browser.newPage({ viewport: { width: 1760, height: 1000 } }), problems = [];
  page.setDefaultTimeout(120000);
  page.on('pageerror', error => problems.push(String(error)));
  await page.goto(`${url}/?template=${name}&source=vasa`, { waitUntil: 'domcontentloaded' });
  await page.waitForFunction(drawn);
  await page.waitForTimeout(1000); // red marks and dialogs come after the nodes
  if (!(await page.evaluate(look)).red.length) {
    const posted = page.waitForResponse(one => one.request().method() === 'POST' && one.url().endsWith('/prompt'));
    await page.getByTestId('queue-button').click();
    await posted;
    await page.waitForTimeout(500);
  }
  findings[name] = { ...(await page.evaluate(look)), problems };
  await page.screenshot({ path: path.join(folder, `${name}.png`) });
  findings[name].thumbnails = await thumbnails(page);
  await page.close();
}
await browser.close();
console.log(JSON.stringify(findings));
