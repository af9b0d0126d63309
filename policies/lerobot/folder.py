"""What a LeRobot policy's folder says: ``config.json`` and the processors beside it. No weights are read.

LeRobot writes ``checkpoints/NNNNNN/pretrained_model/``. Until 0.3 the statistics that numbers are normalised
by are tensors among the weights; from 0.4 on they are files of their own, named by
``policy_preprocessor.json``, which also lists what else is done to an observation. A step that is not known
here would change what the network sees: such a folder is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policies.checkpoint import CheckpointError
from runtime.input_file import parse_json, read_small

CONFIG, WEIGHTS = "config.json", "model.safetensors"
BEFORE, AFTER = "policy_preprocessor.json", "policy_postprocessor.json"
STATE, ENVIRONMENT, ACTION, PICTURES = (
    "observation.state",
    "observation.environment_state",
    "action",
    "observation.images.",
)
KINDS = ("act", "diffusion", "smolvla")
BEYOND = "smolvla with inputs that LeRobot has not: "
"""How the type of a folder of `dexrun train` begins that LeRobot cannot run; their names follow."""

_FEATURE_KINDS: tuple[str, ...] = ("STATE", "ENV", "VISUAL", "ACTION", "LANGUAGE", "REWARD")
_MODES: tuple[str, ...] = ("IDENTITY", "MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10")
_EMPTY = f"{PICTURES}empty_camera_"
_WIDEST = 1024
_LARGEST_PICTURE = 8192
_NORMALIZER, _UNNORMALIZER = "normalizer_processor", "unnormalizer_processor"
_TOKENIZER, _RENAME = "tokenizer_processor", "rename_observations_processor"
_PLAIN_STEPS = ("to_batch_processor", "device_processor", "smolvla_new_line_processor")


class FolderError(CheckpointError, ValueError):
    """A folder cannot be used. One line: which, what is wrong, what would be accepted."""


@dataclass(frozen=True, slots=True)
class FolderFeature:
    """One of a network's inputs, or its action.

    Attributes:
        kind: LeRobot's own word.
        shape: ``(n,)`` of a vector, ``(3, height, width)`` of a picture.
    """

    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Normalising:
    """By what numbers are normalised.

    Attributes:
        modes: by kind of feature.
        file: where the statistics are; ``None``: among the weights, or nowhere.
        eps: what a divisor is kept away from 0 by.
        features: those that are normalised, by name.
    """

    modes: Mapping[str, str]
    file: Path | None = None
    eps: float = 1e-8
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Words:
    """How an instruction becomes tokens: at most `longest`; `tokenizer` is the name it was trained with."""

    tokenizer: str = ""
    longest: int = 48


@dataclass(frozen=True, slots=True)
class Folder:
    """All that it says.

    Attributes:
        key: which key of the configuration named it; messages begin with it.
        path: the folder. kind: one of `KINDS`.
        config: all of ``config.json``, for what only one kind of network has.
        inputs: by name, in the network's order. action: its answer's rows.
        inward, outward: statistics of what goes in, and of the action.
        renamed: by the network's name of an input, what the data set calls it.
        words: for a network that reads.
        inside: whether the statistics are among the weights.
        beyond: inputs that LeRobot's network of this kind has not, by name; LeRobot cannot run it.
    """

    key: str
    path: Path
    kind: str
    config: Mapping[str, Any]
    inputs: Mapping[str, FolderFeature]
    action: FolderFeature
    inward: Normalising
    outward: Normalising
    renamed: Mapping[str, str] = field(default_factory=dict)
    words: Words = Words()
    inside: bool = False
    beyond: tuple[str, ...] = ()

    @property
    def weights(self) -> Path:
        """The file with the weights."""
        return self.path / WEIGHTS

    @property
    def cameras(self) -> dict[str, str]:
        """The short name of every camera, as the data set has it, and the network's name of its pictures."""
        names = [name for name, feature in self.inputs.items() if feature.kind == "VISUAL"]
        return {_short(self.renamed.get(name, name)): name for name in names}

    @property
    def vectors(self) -> dict[str, int]:
        """Sizes of the vectors that the network takes, by its own names."""
        known = {STATE: "STATE", ENVIRONMENT: "ENV"}
        found = {name: f for name, f in self.inputs.items() if known.get(name) == f.kind}
        return {name: feature.shape[0] for name, feature in found.items()}

    def error(self, why: str) -> FolderError:
        """`why`, with the folder's name before it."""
        return FolderError(f"{self.key} = {str(self.path)!r}: {why}")


def _short(name: str) -> str:
    return name.removeprefix(PICTURES).removeprefix("observation.")


def open_folder(key: str, given: str) -> Folder:
    """The folder `given` by the configuration's `key`.

    Raises:
        FolderError: it is not there, is no policy's, is of a kind that does not run here, or is damaged.
    """
    if not given:
        raise FolderError(
            f"{key} is required: LeRobot's pretrained_model folder (a LeRobot policy server is asked by type "
            "'lerobot_grpc')"
        )
    path = Path(given).expanduser()
    told = f"{key} = {given!r}"
    if not path.is_dir():
        raise FolderError(
            f"{told}: no such folder; give LeRobot's pretrained_model: nothing is fetched from a hub"
        )
    if not (path / CONFIG).is_file():
        raise FolderError(f"{told}: there is no {CONFIG} in it{_instead(path)}")
    try:
        return _Reader(key, path, told).read()
    except FolderError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise FolderError(f"{told}: not as LeRobot writes it: {type(error).__name__} {error}") from None


def _instead(path: Path) -> str:
    """Where the folder is, if `path` is one around it."""
    inner = "pretrained_model"
    for place in (inner, f"last/{inner}", f"checkpoints/last/{inner}"):
        if (path / place / CONFIG).is_file():
            return f"; give {path / place}"
    if (path / "policy.json").is_file():
        return "; it is one of dexrun train: give it as policy.checkpoint, without policy.type = 'lerobot'"
    return "; give LeRobot's pretrained_model, which has config.json and model.safetensors"


class _Reader:
    def __init__(self, key: str, path: Path, told: str) -> None:
        self._key, self._path, self._told = key, path, told

    def _error(self, why: str) -> FolderError:
        return FolderError(f"{self._told}: {why}")

    def read(self) -> Folder:
        config = self._json(CONFIG)
        beyond: tuple[str, ...] = ()
        kind = config.get("type")
        if isinstance(kind, str) and kind.startswith(BEYOND):
            kind, beyond = "smolvla", tuple(kind.removeprefix(BEYOND).split(", "))
        if kind not in KINDS:
            named = (
                f"a policy of type {kind!r}"
                if isinstance(kind, str)
                else "no LeRobot policy (it has no type)"
            )
            raise self._error(f"{named}; those that run here are {', '.join(KINDS)}")
        if not (self._path / WEIGHTS).is_file():
            adapter = " (it has a LoRA adapter: merge it into the weights first)"
            is_adapter = (self._path / "adapter_config.json").is_file()
            raise self._error(f"there is no {WEIGHTS} in it{adapter if is_adapter else ''}")
        inputs = self._features(config, "input_features")
        if kind == "smolvla" and config.get("empty_cameras"):  # masked pictures, which nothing looks at
            inputs = {name: each for name, each in inputs.items() if not name.startswith(_EMPTY)}
        action = self._features(config, "output_features").get(ACTION)
        if action is None or action.kind != "ACTION":
            raise self._error(f"{CONFIG}: output_features has no {ACTION!r}")
        modes = self._modes(config.get("normalization_mapping") or {}, CONFIG)
        if (self._path / BEFORE).is_file() or (self._path / AFTER).is_file():
            inward, renamed, words = self._before()
            outward, inside = self._after(), False
        else:
            inward = outward = Normalising(modes, features=(*inputs, ACTION))
            renamed, words, inside = {}, self._own_words(config), True
        return Folder(
            self._key,
            self._path,
            kind,
            config,
            inputs,
            action,
            inward,
            outward,
            renamed,
            words,
            inside,
            beyond,
        )

    def _json(self, name: str) -> dict[str, Any]:
        try:
            said = parse_json(read_small(self._path / name))
        except OSError as error:
            raise self._error(f"{name} cannot be read: {error.strerror or error}") from None
        except ValueError as error:
            raise self._error(f"{name}: {_one_line(error)}") from None
        if not isinstance(said, dict):
            raise self._error(f"{name}: no table in it")
        return said

    def _features(self, config: Mapping[str, Any], key: str) -> dict[str, FolderFeature]:
        held = config.get(key)
        if not isinstance(held, dict) or not held:
            raise self._error(f"{CONFIG}: no {key}")
        return {name: self._feature(name, each) for name, each in held.items()}

    def _feature(self, name: str, said: Any) -> FolderFeature:
        kind = said.get("type") if isinstance(said, dict) else None
        shape = said.get("shape") if isinstance(said, dict) else None
        if kind not in _FEATURE_KINDS or not isinstance(shape, list):
            raise self._error(f"{CONFIG}: {name!r} is {_shown(said)}; expected a type and a shape")
        wanted, most = ("[3, height, width]", _LARGEST_PICTURE) if kind == "VISUAL" else ("[n]", _WIDEST)
        whole = all(type(n) is int and 0 < n <= most for n in shape)
        if not whole or (len(shape), shape[0] if kind == "VISUAL" else 3) != (
            3 if kind == "VISUAL" else 1,
            3,
        ):
            raise self._error(f"{CONFIG}: {name!r} has shape {_shown(shape)}; expected {wanted} up to {most}")
        return FolderFeature(str(kind), tuple(shape))

    def _modes(self, said: Any, where: str) -> dict[str, str]:
        modes = dict(said)
        for kind, mode in modes.items():
            if mode not in _MODES:
                raise self._error(f"{where}: {kind} is normalised by {mode!r}; known are {', '.join(_MODES)}")
        return modes

    # --- from 0.4 on

    def _steps(self, name: str) -> list[tuple[str, dict[str, Any], Any]]:
        """Name, configuration and file of statistics of every step."""
        steps = self._json(name).get("steps")
        if not isinstance(steps, list):
            raise self._error(f"{name}: no list of steps")
        return [
            (str(s.get("registry_name") or s.get("class")), dict(s.get("config") or {}), s.get("state_file"))
            for s in steps
        ]

    def _before(self) -> tuple[Normalising, dict[str, str], Words]:
        statistics, renamed, words = Normalising({}), {}, Words()
        for name, said, file in self._steps(BEFORE):
            if name == _NORMALIZER:
                statistics = self._statistics(BEFORE, said, file)
            elif name == _RENAME:
                renamed = {str(now): str(was) for was, now in dict(said.get("rename_map") or {}).items()}
            elif name == _TOKENIZER:
                words = Words(
                    str(said.get("tokenizer_name") or ""), self._longest(said.get("max_length", 512))
                )
            elif name not in _PLAIN_STEPS:
                raise self._unknown(BEFORE, name)
        return statistics, renamed, words

    def _after(self) -> Normalising:
        statistics = Normalising({})
        for name, said, file in self._steps(AFTER):
            if name == _UNNORMALIZER:
                statistics = self._statistics(AFTER, said, file)
            elif name not in _PLAIN_STEPS:
                raise self._unknown(AFTER, name)
        return statistics

    def _unknown(self, where: str, name: str) -> FolderError:
        return self._error(
            f"{where}: its step {name!r} is none that runs here; without it, actions would differ"
        )

    def _statistics(self, where: str, said: Mapping[str, Any], file: Any) -> Normalising:
        modes = self._modes(said.get("norm_map") or {}, where)
        eps = said.get("eps", 1e-8)
        if not isinstance(eps, float) or not 0 <= eps <= 1:
            raise self._error(f"{where}: eps is {_shown(eps)}; expected a small number")
        features = tuple(said.get("features") or ())
        if (only := said.get("normalize_observation_keys")) is not None:
            features = tuple(name for name in features if name in only or name == ACTION)
        if file is None:
            return Normalising(modes, None, eps, features)
        path = self._path / str(file)
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise self._error(f"{where}: its statistics are in {_shown(file)}; expected a file beside it")
        if not path.is_file():
            raise self._error(f"there is no {file} in it, which {where} names")
        return Normalising(modes, path, eps, features)

    # --- before

    def _own_words(self, config: Mapping[str, Any]) -> Words:
        if not str(config.get("type")).startswith("smolvla"):
            return Words()
        name = str(config.get("vlm_model_name") or "")
        return Words(name, self._longest(config.get("tokenizer_max_length", 48)))

    def _longest(self, said: Any) -> int:
        if type(said) is not int or not 0 < said <= 4096:
            raise self._error(f"an instruction of at most {_shown(said)} tokens; expected 1 to 4096")
        return said


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
