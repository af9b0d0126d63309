"""The base of every configuration model: frozen, unknown keys rejected."""

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """One table of the configuration file.

    Every room declares its own options beside the code that reads them; ``dexrun.config`` composes
    them into one model. Physical keys end in their unit (``rate_hz``, ``timeout_s``, ``range_rad``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
