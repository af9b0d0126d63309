"""Models of `transformers` from local folders. Imports torch: imported where a model is built."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import dynamic_module_utils
from transformers.utils import logging as transformers_logging

from planner.perception.weights import ModelFolder
from runtime.interfaces import PerceptionError
from runtime.torch_device import ITEM_BYTES, free_bytes, open_device, torch_dtype

dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # of code in a folder nobody is asked whether it may run
_SHOWN = 3


def checked_device(table: str, folder: ModelFolder, device: str, precision: str) -> torch.device:
    """The device called `device`, on which the folder's weights have room.

    Raises:
        PerceptionError: there is no such device, it cannot compute so, or they have not; begins with `table`.
    """
    try:
        opened = open_device(table, device, precision)
    except ValueError as error:
        raise PerceptionError(str(error)) from None
    folder.check_fits(ITEM_BYTES[precision], free_bytes(opened), str(opened))
    return opened


def load_model(folder: ModelFolder, class_name: str, device: torch.device, precision: str) -> Any:
    """The network of `folder` as `transformers`' class `class_name`, in evaluation mode.

    Raises:
        PerceptionError: weights are missing or of other sizes, or the memory is not enough; one line.
    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    told = f"{folder.key} = {str(folder.path)!r}"
    try:
        model, report = getattr(transformers, class_name).from_pretrained(
            folder.path,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch_dtype(precision),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are said below, in one line
        )
        model = model.eval().to(device)
    except (torch.OutOfMemoryError, MemoryError):
        gib = folder.parameters * ITEM_BYTES[precision] / 2**30
        raise PerceptionError(f"{told}: out of memory on {device}: its weights need {gib:.2f} GiB") from None
    except Exception as error:  # what is wrong with a configuration comes as any of a dozen kinds
        raise PerceptionError(f"{told}: {why(error)}") from None
    for wrong, what in (
        (report["missing_keys"], "are not in it"),
        ((each[0] for each in report["mismatched_keys"]), "have other sizes in it"),
    ):
        if names := sorted(wrong):
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            raise PerceptionError(f"{told}: {len(names)} weights of {class_name} {what}: {shown}")
    return model


def why(error: Exception) -> str:
    """What `transformers` says of a folder, in one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    return "it needs code of its own, which is never run" if "trust_remote_code" in said else said
