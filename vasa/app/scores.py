"""Scores of one clip, from its motion and its speech: do the lips follow, is it alive, is it smooth."""

from __future__ import annotations

import math

from ..io.audio import LoadedAudio
from ..metrics.motion_quality import JITTER_HERTZ, blink_peaks, jitter, pose_intensity
from ..motion_file import MotionFile
from .inspection import Finding, envelope, mouth_opening, sync

SHORTEST_SECONDS = 1.0
"""Motion shorter than this is not scored."""
FOLLOWS, LATE_FRAMES = 0.2, 3
SHAKES_DEGREES = 0.5


def scores(file: MotionFile, sound: LoadedAudio | None) -> list[Finding]:
    """What can be measured without a look at the picture.

    Args:
        file: the clip's motion.
        sound: what is said, if it is known.
    """
    motion, names = file.motion, file.names
    seconds = len(motion) / motion.fps
    findings = [Finding("Motion", f"{len(motion)} frames, {seconds:.1f} s, model {file.model or 'unknown'}")]
    if seconds < SHORTEST_SECONDS:
        return findings
    opening = mouth_opening(motion, names)
    if sound is not None and opening is not None:
        agreement, late = sync(opening, envelope(sound, motion.fps, len(motion)))
        words = f"jaw and loudness agree by {agreement:.2f} of 1, the jaw {1000 * late / motion.fps:+.0f} ms late"
        off = agreement < FOLLOWS or abs(late) > LATE_FRAMES
        remedy = "Is this the speech the clip was made of? Else raise “Follow audio”." if off else ""
        findings.append(Finding("Lips and sound", words, remedy, "warn" if off else ""))
    strength = pose_intensity(motion.head_pose)
    findings.append(Finding("Head movement", f"{strength:.2f}° from frame to frame (pose intensity ΔP)"))
    shaking = math.degrees(max(jitter(motion.head_pose[:, axis], motion.fps).amplitude for axis in range(3)))
    shakes = shaking > SHAKES_DEGREES
    remedy = "“Calm the head” on the tab Edit smooths it." if shakes else ""
    words = f"{shaking:.2f}° of movement faster than {JITTER_HERTZ:.0f} Hz"
    findings.append(Finding("Steadiness", words, remedy, "warn" if shakes else ""))
    lids = [names.index(name) for name in ("eyeBlink_L", "eyeBlink_R") if name in names]
    if lids:
        blinks = len(blink_peaks(motion.facial_dynamics[:, lids].amin(1)))
        findings.append(Finding("Blinks", f"{blinks}, {60 * blinks / seconds:.0f} a minute"))
    return findings
