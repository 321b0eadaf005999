"""How the page looks: one theme, system fonts (nothing is fetched from anywhere), a little CSS."""

from __future__ import annotations

import gradio as gr

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def theme() -> gr.themes.Base:
    """Calm greys with one accent."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        font=list(FONTS),
        font_mono=list(MONO_FONTS),
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_border_width="1px",
        block_shadow="none",
        block_label_background_fill="white",
        block_label_background_fill_dark="*neutral_900",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_text_color="white",
        slider_color="*primary_600",
    )


CSS = """
/* not within @media, where Gradio puts its own classes before every selector */
.gradio-container { width: 100% !important; max-width: 1360px !important; margin: 0 auto;
  padding: 0 min(20px, 1.4vw) 32px !important; }
.gradio-container .main.fillable { padding: 16px min(32px, 2.3vw) !important; }
.vasa-head { padding: 20px 4px 4px; }
.vasa-head h1 { font-size: 1.6rem; font-weight: 650; letter-spacing: -0.01em; margin: 0; }
.vasa-head p { margin: 2px 0 0; color: var(--body-text-color-subdued); }
/* the player and its status keep their size whatever is in them, so that nothing jumps */
.vasa-player, .vasa-player video { height: 460px !important; }
#live-stage, #live-stage > div { padding: 0 !important; }
#still img { width: 100%; height: 100%; object-fit: contain; }
.vasa-status { min-height: 84px; padding: 4px 2px; }
.vasa-status .bar { height: 4px; border-radius: 2px; background: var(--border-color-primary); overflow: hidden; }
.vasa-status .bar div { height: 100%; background: var(--primary-600); transition: width .3s; }
.vasa-status .line { margin-top: 8px; font-variant-numeric: tabular-nums; }
.vasa-status .notes { margin-top: 4px; font-size: .9em; color: var(--body-text-color-subdued); }
.vasa-status .problem { color: var(--error-text-color, #b91c1c); }
.vasa-line { margin: -10px 0 -4px; padding: 0 2px !important; }
.vasa-line, .vasa-line p { font-size: var(--block-info-text-size) !important; line-height: 1.35;
  color: var(--block-info-text-color) !important; }
#preview img { cursor: pointer; }
.vasa-consent { font-size: .86em; color: var(--body-text-color-subdued); padding: 0 2px; }
.vasa-table table { width: 100%; border-collapse: collapse; font-size: .95em; }
.vasa-table table, .vasa-table tr, .vasa-table td { border: 0 !important; }
.vasa-table td { padding: 5px 8px; border-bottom: 1px solid var(--border-color-primary) !important;
  vertical-align: top; }
.vasa-table td:first-child { white-space: nowrap; color: var(--body-text-color-subdued); }
.vasa-table .remedy { display: block; font-size: .9em; color: var(--body-text-color-subdued); }
.vasa-table .bad { color: var(--error-text-color, #b91c1c); } .vasa-table .warn { color: #b45309; }
.dark .vasa-table .warn { color: #fbbf24; }
/* a low box for files has no room for the arrow above its words */
.hint-motion .icon-wrap, .hint-second .icon-wrap, .hint-motion-file .icon-wrap, .hint-any-video .icon-wrap,
.hint-own-workflow .icon-wrap, .hint-driver .icon-wrap { display: none; }
/* Gradio draws “</>” before the labels of widgets of our own */
.hint-gaze label > span:has(svg) { display: none; }
@media (max-width: 640px) {
  #head { flex: 1 0 100%; }
  .tabs, .tab-wrapper, .tab-container { min-width: 0; max-width: 100%; }
  .tab-container button { padding: 8px 7px !important; font-size: .92rem; }
  .vasa-player, .vasa-player video { height: 340px !important; }
}
"""
