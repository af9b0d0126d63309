"""The panel's HTTP: what is read by GET, and what is changed by POST."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from dexrun.panel.server import results
from dexrun.panel.server.data_sets import DataSets
from dexrun.panel.server.guard import BODY_BYTES
from dexrun.panel.server.job import PanelJob
from dexrun.panel.server.job_kinds import KINDS
from dexrun.panel.server.jobs import Jobs
from dexrun.panel.server.places import Places
from runtime.http_server import RefusedError

T = TypeVar("T")

_PICTURES = {".jpg": "image/jpeg", ".png": "image/png"}
_REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Api:
    """Endpoints below ``/api``; each raises `RefusedError` for what it does not do."""

    def __init__(self, places: Places, jobs: Jobs, data: DataSets) -> None:
        self._places = places
        self._jobs = jobs
        self._data = data

    def routes(self) -> list[BaseRoute]:
        """See the class."""
        get, post = partial(Route, methods=["GET"]), partial(Route, methods=["POST"])
        return [
            get("/api/choices", self._choices),
            get("/api/runs", self._runs),
            get("/api/runs/{name}/file/{path:path}", self._run_file),
            get("/api/data", self._data_sets),
            get("/api/data/{id}/episodes", self._episodes),
            get("/api/data/{id}/episodes/{number:int}", self._episode),
            get("/api/data/{id}/episodes/{number:int}/picture", self._picture),
            get("/api/evaluations/{name}", self._evaluation),
            get("/api/evaluations/{name}/file/{path:path}", self._evaluation_file),
            get("/api/jobs", self._all_jobs),
            post("/api/jobs", self._start),
            get("/api/jobs/{number:int}", self._job),
            get("/api/jobs/{number:int}/file/{path:path}", self._job_file),
            get("/api/jobs/{number:int}/report", self._job_report),
            post("/api/jobs/{number:int}/stop", self._stop),
            post("/api/jobs/{number:int}/input", self._input),
        ]

    async def _choices(self, request: Request) -> Response:
        del request
        from runtime import plugins

        return JSONResponse(
            {
                "configs": self._places.configurations(),
                "modes": ["grasp", "teleop", "rollout"],
                "policies": plugins.installed().names("policy"),
                "checkpoints": await _on_thread(self._places.checkpoints),
                "evaluations": await _on_thread(self._places.evaluations),
                "calibrations": self._places.calibrations(),
                "ports": await _on_thread(_serial_ports),
                "kinds": [kind.as_json() for kind in KINDS.values()],
            }
        )

    # --- runs

    async def _runs(self, request: Request) -> Response:
        del request
        return JSONResponse({"runs": await _on_thread(partial(results.runs, self._places.runs))})

    async def _run_file(self, request: Request) -> Response:
        return _picture_of(self._places.runs / request.path_params["name"], self._places.runs, request)

    # --- data sets

    async def _data_sets(self, request: Request) -> Response:
        del request
        return JSONResponse({"data": await self._on_data(self._data.listed)})

    async def _episodes(self, request: Request) -> Response:
        return JSONResponse(await self._on_data(partial(self._data.episodes, request.path_params["id"])))

    async def _episode(self, request: Request) -> Response:
        asked = request.path_params
        return JSONResponse(await self._on_data(partial(self._data.episode, asked["id"], asked["number"])))

    async def _picture(self, request: Request) -> Response:
        asked, row = request.path_params, request.query_params.get("row", "0")
        if not row.isdecimal() or len(row) > 9:
            raise RefusedError(400, "row: a whole number")
        camera = request.query_params.get("camera", "")
        data = await self._on_data(
            partial(self._data.picture, asked["id"], asked["number"], camera, int(row))
        )
        return Response(data, media_type="image/jpeg")

    async def _on_data(self, work: Callable[[], T]) -> T:
        import asyncio

        return await asyncio.get_running_loop().run_in_executor(self._data.thread, work)

    # --- evaluations

    async def _evaluation(self, request: Request) -> Response:
        folder = self._places.evaluation(request.path_params["name"])
        return JSONResponse({"evaluation": await _on_thread(partial(self._evaluated, folder))})

    async def _evaluation_file(self, request: Request) -> Response:
        folder = self._places.evaluation(request.path_params["name"])
        return _picture_of(folder, folder, request)

    def _evaluated(self, folder: Path) -> dict[str, Any] | None:
        """What an evaluation has found, each recording by the name that it has among the data sets."""
        found = results.evaluation(folder)
        for scene in found["scenes"] if found else ():
            scene["recordings"] = [self._data.known(Path(each)) for each in scene["recordings"]]
        return found

    # --- jobs

    async def _all_jobs(self, request: Request) -> Response:
        del request
        return JSONResponse({"jobs": self._jobs.as_json()})

    async def _start(self, request: Request) -> Response:
        body = await _body(request)
        job = self._jobs.start(body.get("kind"), body.get("args", {}))
        return JSONResponse(job.as_json(), 201)

    async def _job(self, request: Request) -> Response:
        job = self._jobs.job(request.path_params["number"])
        return JSONResponse(
            {
                **job.as_json(),
                "output": job.tail.lines(),
                "asked": job.asked(),
                **await _on_thread(partial(self._more, job)),
            }
        )

    def _more(self, job: PanelJob) -> dict[str, Any]:
        """What a job's folder tells."""
        if job.kind.name == "check":
            return {"report": self._report(job).is_file()}
        if job.folder is None:
            return {}
        if job.kind.words[:1] == ("train",):
            return {"folder": self._places.shown(job.folder), "figures": results.training(job.folder)}
        if job.kind.name == "eval":
            return {"folder": self._places.shown(job.folder), "evaluation": self._evaluated(job.folder)}
        return {"folder": self._places.shown(job.folder)}

    async def _job_file(self, request: Request) -> Response:
        job = self._jobs.job(request.path_params["number"])
        if job.folder is None:
            raise RefusedError(404, f"job {job.number} has no files")
        return _picture_of(job.folder, job.folder, request)

    def _report(self, job: PanelJob) -> Path:
        """Where a check of a data set writes what it found, as a page."""
        checked = self._places.inside(job.given["data"]).resolve()
        return checked.with_name(f"{checked.name}-check.html")

    async def _job_report(self, request: Request) -> Response:
        job = self._jobs.job(request.path_params["number"])
        if job.kind.name != "check" or not (path := self._report(job)).is_file():
            raise RefusedError(404, f"job {job.number} has no report")
        return FileResponse(path, headers={"content-security-policy": _REPORT_POLICY})

    async def _stop(self, request: Request) -> Response:
        return JSONResponse(self._jobs.stop(request.path_params["number"]).as_json())

    async def _input(self, request: Request) -> Response:
        body, number = await _body(request), request.path_params["number"]
        return JSONResponse(self._jobs.type(number, body.get("line"), body.get("question")).as_json())


def _serial_ports() -> list[str]:
    """By names that last; none is opened."""
    from dexrun.setup.ports import places

    return [place.path for place in places()]


async def _on_thread(work: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(work)


async def _body(request: Request) -> dict[str, Any]:
    """A POST's JSON object.

    Raises:
        RefusedError: it is none, or is too long.
    """
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_BYTES:
            raise RefusedError(413, f"a body has at most {BODY_BYTES} bytes")
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        raise RefusedError(400, "the body is not JSON") from None
    if not isinstance(said, dict):
        raise RefusedError(400, "the body is not a JSON object")
    return said


def _picture_of(folder: Path, within: Path, request: Request) -> Response:
    """A picture, or a report, somewhere in `folder`, which is below `within` or is it.

    Raises:
        RefusedError: there is none there.
    """
    try:
        path, root = (folder / request.path_params["path"]).resolve(), folder.resolve()
        inside = root in path.parents and (root == within.resolve() or within.resolve() in root.parents)
        there = inside and path.is_file()
    except (OSError, ValueError):  # no path at all, or one that is too long
        there = False
    if not there or path.suffix not in (*_PICTURES, ".html"):
        raise RefusedError(404, "no such picture")
    if path.suffix == ".html":
        return FileResponse(path, headers={"content-security-policy": _REPORT_POLICY})
    return FileResponse(path, media_type=_PICTURES[path.suffix])
