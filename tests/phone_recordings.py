"""Recordings as phones and browsers make them, which libsndfile does not read."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

PHONE_RATE = 48_000
"""In hertz."""
CONTAINERS = {
    "m4a": ("ipod", "aac"),
    "mp4": ("mp4", "aac"),
    "aac": ("adts", "aac"),
    "webm": ("webm", "libopus"),
    "mka": ("matroska", "aac"),
}
"""Muxer and codec of FFmpeg, by the end of the name."""


def write_by_ffmpeg(path: Path, samples: np.ndarray, rate: int = PHONE_RATE) -> None:
    """Samples (S, C) in the container of the file's name."""
    container, codec = CONTAINERS[path.suffix[1:]]
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        fifo = av.AudioFifo()
        planes = np.ascontiguousarray(samples.T)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        frame.sample_rate = rate
        fifo.write(frame)
        while part := fifo.read(stream.codec_context.frame_size or 1024, partial=True):
            part.pts = None
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
