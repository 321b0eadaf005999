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
const FILE_WIDGETS = { VASA_LoadPortrait: "portrait", VASA_LoadSpeech: "audio" };

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
function showSample(node) {
  const widget = node.widgets?.find((one) => one.name === FILE_WIDGETS[node.comfyClass]);
  if (!widget || !String(widget.value).endsWith(SAMPLE)) return;
  const name = widget.value.slice(0, -SAMPLE.length);
  const url = api.apiURL(`/vasa/samples/${encodeURIComponent(name)}`);
  const player = node.widgets.find((one) => one.name === "audioUI");
  if (player?.element) {
    player.element.src = url;
    player.element.classList.remove("empty-audio-widget");
  } else {
    const picture = new Image();
    picture.onload = () => {
      node.imgs = [picture];
      node.setDirtyCanvas?.(true, true);
    };
    picture.src = url;
  }
}

function watchSample(node) {
  const widget = node.widgets?.find((one) => one.name === FILE_WIDGETS[node.comfyClass]);
  if (!widget) return;
  const callback = widget.callback;
  widget.callback = function (...given) {
    const answer = callback?.apply(this, given);
    setTimeout(() => showSample(node), 100);
    return answer;
  };
  setTimeout(() => showSample(node), 500);
}

// Choosing a palette clears the colours of types it does not know; a loaded graph paints them again.
function graphIsThere() {
  paint();
  setTimeout(() => app.graph?.nodes?.forEach(showSample), 500);
}

app.registerExtension({
  name: "vasa.nodes",
  beforeRegisterNodeDef: addPlayer,
  nodeCreated: watchSample,
  setup: paint,
  afterConfigureGraph: graphIsThere,
});
