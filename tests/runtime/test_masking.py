"""Secrets that come back in other people's text are not written."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from loguru import logger

from dexrun.run_folder import RunFolder
from dexrun.terminal.log import open_log
from runtime import masking
from runtime.masking import know_secret, know_secrets_of, masked, secret_of, without_secrets
from runtime.recording import schemas

KEY = 'sk-"Ü/x 1'


def test_a_known_secret_is_taken_out_in_every_form_in_which_it_comes_back() -> None:
    know_secret(f" {KEY}\n")
    for form in (
        f"you sent {KEY}, which",
        json.dumps({"Authorization": f"Bearer {KEY}"}),
        json.dumps({"said": KEY}, ensure_ascii=False),
        f"{KEY!a}",
        "http://gpu/?key=sk-%22%C3%9C%2Fx%201&x",
        f"Basic {base64.b64encode(KEY.encode()).decode()}",
    ):
        assert "sk-" not in without_secrets(form)
        assert "c2st" not in without_secrets(form)
        assert masking.HIDDEN in without_secrets(form)


def test_a_secret_that_is_a_part_of_another_leaves_nothing_of_it() -> None:
    know_secret("secret")
    know_secret("sk-secret-7")
    assert without_secrets("you sent sk-secret-7, a secret") == "you sent ***, a ***"


def test_what_is_too_short_to_be_a_secret_is_left() -> None:
    know_secret("the")
    assert without_secrets("the table") == "the table"


def test_passwords_of_addresses_are_secrets_and_words_are_not() -> None:
    know_secrets_of("rtsp://camera:hunter2@10.0.0.3/1 http://tok3n-abc@gpu/v1 rtsp://camera:camera@x/")
    assert without_secrets("said hunter2 and tok3n-abc to camera") == "said *** and *** to camera"
    assert masked("rtsp://camera:camera@x/") == "rtsp://***@x/"


def test_nothing_is_a_secret_where_the_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    assert secret_of("NO_SUCH") == ""
    assert without_secrets("anything") == "anything"


def test_what_a_run_writes_has_no_secret(tmp_path: Path) -> None:
    know_secret("sk-secret")
    folder = RunFolder(tmp_path, 0)
    folder.write_summary({"planner": {"detail": "bad key sk-secret"}})
    sinks = open_log(folder.path, "INFO")
    logger.info("the server says sk-secret")
    for sink in sinks:
        logger.remove(sink)
    for file in folder.path.iterdir():
        assert "sk-secret" not in file.read_text()
        assert "***" in file.read_text()
    assert json.loads(schemas.event("exchange", {"reply": "sk-secret!"})) == {
        "kind": "exchange",
        "reply": "***!",
    }
