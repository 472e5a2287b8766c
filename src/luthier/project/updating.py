"""How `luthier update` makes the next model, and what that model must show: part of the section `watch`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from luthier.errors import SpecError
from luthier.spec import Spec, parse
from luthier.train.base import Train


class UpdateGate(Spec):
    """What an updated model must show beside the live one before it replaces it. `release.gate` applies as well."""

    max_loss: float = Field(default=0.02, ge=0)
    """Greatest fall on the old test rows, in units of the task's metric (relative for losses: 0.02 = 2 %). A surely
    larger fall is refused; one that may be larger is unsure."""
    max_new_loss: float = Field(default=0.0, ge=0)
    """The same on the new test rows, where the updated model should be better than the live one."""
    max_retention_rise: float | None = Field(default=0.03, ge=0)
    """assistant, completion: greatest relative rise of the token loss on general text against the live model; null does
    not look."""
    max_contradicted: float | None = Field(default=0.3, ge=0, le=1)
    """classify, image: greatest share of new rows whose label contradicts the live model among those that it is sure
    of; more is a sign of wrong labels. Where it is sure of fewer than 10: how much seldomer it may agree with new
    labels than with those of old test rows. null does not look."""
    sure: float = Field(default=0.9, gt=0, lt=1)
    """Probability from which the live model counts as sure of a label, for `max_contradicted`."""
    unsure: Literal["ask", "refuse", "promote"] = "ask"
    """What happens where the test is too small to tell: `ask` waits for `luthier update --approve NAME`."""
    approval: Literal["auto", "required"] = "auto"
    """`required`: a person approves every update, also those that pass."""


class Updating(Spec):
    """How an update trains, and what it must show."""

    start: Literal["champion", "base"] = "champion"
    """What training begins from: the live model, on new, changed and some past rows, or the base model, on all rows. It
    is the base model anyway where the live one cannot be trained on (an ensemble, another base model or task)."""
    removed: Literal["base", "keep"] = "base"
    """Where documents or rows were removed: `base` trains again without them, for training on cannot make a model
    forget; `keep` goes on from the live model, which still knows them. `luthier forget` always trains again."""
    past: float = Field(default=0.5, ge=0, lt=1)
    """Share of an update's train rows that were learned before (all classes alike), so that they are not forgotten; 0
    trains on new and changed rows only."""
    least_past: int = Field(default=200, ge=0)
    """At least so many past rows, where there are: a few new rows alone would pull the model to themselves."""
    train: dict[str, Any] = {}
    """Fields of the section `train` that differ for an update, such as {epochs: 2, learning_rate: 2e-5}."""
    gate: UpdateGate = UpdateGate()
    """What the updated model must show."""

    @field_validator("train")
    @classmethod
    def _known(cls, fields: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        try:
            parse(Train, fields, local=(info.context or {}).get("local"))
        except SpecError as error:
            raise ValueError(f"not fields of the section train: {error}") from None
        return fields
