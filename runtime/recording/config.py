"""What can be configured about the recorder itself."""

from __future__ import annotations

from pydantic import Field

from runtime.options import Options


class RecorderOptions(Options):
    """How episodes are written.

    Attributes:
        jpeg_quality: of colour, 1 to 100.
        lossless: colour as PNG instead; some seven times the size and twenty times the work.
        depth_level: zstd level at which depth is packed; depth is always lossless.
        flush_s: everything up to so long ago is on the disk; a crash costs at most this and the time that
            the disk takes to answer.
        encoders: threads that encode images.
        queue_mib: what may wait for the encoders and the disk; beyond it, samples are dropped and counted.
        warn_free_mib: with less room on the disk a warning is given.
        min_free_mib: with less room the episode is stopped and saved, and none is started.
        settle_s: after an episode's end, samples that were taken before it are waited for this long.
    """

    jpeg_quality: int = Field(default=90, ge=1, le=100)
    lossless: bool = False
    depth_level: int = Field(default=1, ge=1, le=19)
    flush_s: float = Field(default=0.4, ge=0.05, le=10.0)
    encoders: int = Field(default=2, ge=1, le=16)
    queue_mib: float = Field(default=256.0, ge=8.0)
    warn_free_mib: float = Field(default=4096.0, ge=0.0)
    min_free_mib: float = Field(default=512.0, ge=0.0)
    settle_s: float = Field(default=0.3, ge=0.0, le=5.0)
