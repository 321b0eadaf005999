// Colours of the pack's sockets and links in both renderers of the editor; sound and picture of its samples.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const COLOURS = {
  VASA_MODEL: "#b39ddb",
  VASA_FACE: "#f4a07c",
  VASA_CROP: "#c8ad8d",
  VASA_AUDIO_FEATURES: "#7fc8c2",
  VASA_CONTROLS: "#e6c65c",
  VASA_MOTION: "#8fd06f",
};
const SAMPLE = " [sample]";
const VIDEO = /\.mp4$/;

function paint() {
  const canvas = app.canvas;
  if (canvas?.default_connection_color_byType) Object.assign(canvas.default_connection_color_byType, COLOURS);
  if (canvas?.constructor?.link_type_colors) Object.assign(canvas.constructor.link_type_colors, COLOURS);
  for (const [type, colour] of Object.entries(COLOURS)) {
    document.documentElement.style.setProperty(`--color-datatype-${type}`, colour);
  }
}

// The editor gives its own audio loaders a player, and its upload button needs one to exist before it.
function addPlayer(nodeType, nodeData) {
  if (nodeData.name !== "VASA_LoadSpeech") return;
  const { upload, audioUI, ...others } = nodeData.input.required;
  nodeData.input.required = { ...others, audioUI: ["AUDIO_UI", {}], ...(upload && { upload }) };
}

// The editor looks for chosen files in the input folder only; samples lie in the pack.
function sampleRoute(address) {
  const [path, query] = address.split("?");
  const name = new URLSearchParams(query).get("filename");
  if (!path.endsWith("/view") || !name?.endsWith(SAMPLE)) return null;
  return `/vasa/samples/${encodeURIComponent(name.slice(0, -SAMPLE.length))}`;
}

// Nodes get the addresses of pictures and sounds from api, in both renderers. A video's is left alone there: a classic
// node would grow a player, whose value Run would post.
function nameSamples() {
  const apiURL = api.apiURL.bind(api);
  api.apiURL = (route) => {
    const sample = sampleRoute(route);
    return apiURL(sample && !VIDEO.test(sample) ? sample : route);
  };
}

// What asked for a sample all the same (videos and thumbnails of HTML nodes, the player of a video's sound) asks again.
function retry(event) {
  const sample = sampleRoute(event.target.src ?? "");
  if (!sample) return;
  event.stopImmediatePropagation(); // the node would give up
  event.target.src = api.apiURL(sample);
}

// The document does not hear of players that are out of view.
function listenToPlayer(node) {
  if (node.comfyClass !== "VASA_LoadSpeech") return;
  node.widgets?.find((one) => one.name === "audioUI")?.element?.addEventListener("error", retry);
}

nameSamples();
document.addEventListener("error", retry, true);
app.registerExtension({
  name: "vasa.nodes",
  beforeRegisterNodeDef: addPlayer,
  nodeCreated: listenToPlayer,
  setup: paint,
  afterConfigureGraph: paint, // again: choosing a palette clears the colours of types it does not know
});
