"""Request bodies of /v1/classify and /v1/tag; what is not known is refused by name."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from luthier.serve.errors import ApiError


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    model: str | None = None
    """The release's name; left out, the one that is served."""


class Explain(BaseModel):
    """Which words or parts of an image speak for the answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    method: Literal["occlusion", "integrated_gradients"] = "occlusion"
    top: int = Field(default=5, ge=1, le=512)
    """Words told, the most important first (texts)."""
    label: str | None = None
    """The label that is explained; null takes the likeliest."""


class ClassifyRequest(_Body):
    input: Any = None
    """A text, or a list of texts."""
    image: Any = None
    """Image files in base64, with or without a `data:` prefix."""
    top_k: int = Field(default=5, ge=0)
    part: str | None = None
    """Name of a task that the model learned: the answer is among its labels alone; null takes all labels."""
    probabilities: bool = False
    """Also tell the probability of every label."""
    explain: Explain | None = None
    """true, or how to explain."""

    @field_validator("explain", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return {} if value is True else None if value is False else value


class TagRequest(_Body):
    input: Any = None
    """A text, or a list of texts."""


def as_list(value: Any, name: str) -> list[str]:
    """One or many strings as a list; 400 where nothing, or something else, was sent."""
    if value is None:
        raise ApiError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not found or not all(isinstance(one, str) and one for one in found):
        raise ApiError(400, f"{name}: a string or a list of strings is needed, none of them empty.", param=name,
                       code="invalid_value")
    return found
