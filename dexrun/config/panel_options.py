"""Table ``[panel]``: what a run shares with processes beside it, and what happens when a page goes away."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runtime.options import Options

SERVER_PACKAGES = ("starlette", "uvicorn", "websockets", "segno", "prometheus_client")
"""What the page's server needs: the extra ``panel``."""


class PanelOptions(Options):
    """A run shares what it sees and does in shared memory; a server beside it makes a page of that.

    Attributes:
        share: whether the run can be attached to. ``auto``: on the real clock, or if another key of this
            table needs it. Pictures are copied only while somebody looks at them.
        port: a server of the page is started beside the run, on this port; 0 takes any free one, -1 starts
            none (``dexrun panel`` then finds the run by its folder).
        host: the address that it listens at. Any other than this machine's own asks for a token.
        language: of the page: ``en``, ``zh``, or the browser's own.
        rate_hz: pictures are shared at most so often.
        gone: what happens once no page that has sent a command was heard of for `heartbeat_s`: nothing
            (``go_on``), the arm holds until a person has it resume (``hold``), or a stop is latched
            (``stop``).
        heartbeat_s: see `gone`.
        view: ``rerun`` opens Rerun's viewer on this machine beside the run.
        foxglove_port: Foxglove may connect here over its WebSocket; 0 takes any free port, -1 has none.
            It listens at this machine's own address only, and cannot command.
    """

    share: Literal["auto", "always", "never"] = "auto"
    port: int = Field(default=-1, ge=-1, le=65535)
    host: str = Field(default="127.0.0.1", min_length=1, max_length=255, pattern=r"^[A-Za-z0-9.:_-]+$")
    language: Literal["auto", "en", "zh"] = "auto"
    rate_hz: float = Field(default=30.0, ge=1.0, le=240.0)
    gone: Literal["go_on", "hold", "stop"] = "go_on"
    heartbeat_s: float = Field(default=2.0, ge=0.2, le=60.0)
    view: Literal["none", "rerun"] = "none"
    foxglove_port: int = Field(default=-1, ge=-1, le=65535)

    def shared(self, *, stepped: bool) -> bool:
        """Whether the run can be attached to."""
        if self.share != "auto":
            return self.share == "always"
        asked = self.port >= 0 or self.foxglove_port >= 0 or self.view != "none"
        return asked or not stepped
