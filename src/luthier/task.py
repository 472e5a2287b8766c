"""What is learned: the task that every stage reads."""

from __future__ import annotations

from typing import Literal

from luthier.spec import Spec


class Task(Spec):
    """What the model shall do, in which language, and which metric decides."""

    type: Literal["assistant", "completion"] = "assistant"
    """`assistant` answers questions in a chat; `completion` continues domain text."""
    system: str | None = None
    """System message used in training, evaluation and serving alike; None keeps the base model's own default."""
    language: str = "en"
    """Main language of the documents, as a two-letter code; it chooses stop words, stemmer and question words."""
    metric: Literal["token_f1", "answer_loss", "rouge_l", "similarity"] = "token_f1"
    """The one metric that compares systems in the verdict."""
    refusal: str = "I could not find this in the documents."
    """What the assistant answers when the documents do not hold the answer; trained, and recognised by evaluation."""
