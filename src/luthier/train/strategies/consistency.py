"""Consistency training: what the model says of a row must also hold for a strongly changed copy of it.

FixMatch (Sohn et al. 2020): a confident answer to the plain row is the label of its strongly augmented copy. UDA (Xie
et al. 2020): answers are sharpened, and only confident ones count. ReMixMatch (Berthelot et al. 2020): answers are
aligned so that no class takes over. Here the teacher is renewed every round instead of every update, so that it works
on frozen features in seconds, and through the one training loop with any plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from luthier.errors import SpecError
from luthier.plugins import register
from luthier.spec import Spec
from luthier.train.augments import AUGMENTS, Augment, Unbound, inputs_of
from luthier.train.seams import STRATEGIES

if TYPE_CHECKING:
    import numpy as np

    from luthier.adapt.network import LabelModel
    from luthier.train.labelled.base import Fitted, Job
    from luthier.types import Example


@register(STRATEGIES, "consistency")
class Consistency(Spec):
    """Learns from changed copies of the rows that have no label, with the model's confident answers to the unchanged
    ones. Held-out labelled rows decide whether it is done at all."""

    strong: tuple[Annotated[Augment | Unbound, AUGMENTS], ...] = ()
    """The changes, in order; none named: word_dropout and word_noise for texts; translate, colour and erase for
    images."""
    views: int = Field(default=1, ge=1, le=8)
    """Changed copies of each row (texts)."""
    rounds: int = Field(default=3, ge=1)
    """Times that the answers are renewed."""
    threshold: float = Field(default=0.8, gt=0, lt=1)
    """Smallest sharpened probability of an answer that is learned from."""
    temperature: float = Field(default=0.5, gt=0, le=1)
    """Sharpens the answers: probabilities to the power of 1 / temperature; 1 leaves them."""
    align: bool = True
    """Divide answers by how often each class is answered, before they are sharpened."""
    weight: float = Field(default=1.0, gt=0)
    """What a changed copy counts, compared with a labelled row."""
    strength: float = Field(default=1.0, gt=0)
    """Inverse L2 strength of the logistic regression that answers."""
    guard: bool = True
    """Ask held-out labelled rows after every round, and train without unlabelled rows where they do not help."""
    folds: int = Field(default=3, ge=2)
    """Parts of the labelled rows that the guard holds out in turn."""
    most: int = Field(default=5000, ge=1)
    """At most this many unlabelled rows are used, drawn evenly."""

    def inputs(self, root: Path) -> Mapping[str, str]:
        """The hashes of files that the changes read."""
        return inputs_of(self.strong, root)

    def run(self, fit: Callable[[Job], Fitted], job: Job) -> Fitted:
        from dataclasses import replace

        import numpy as np

        from luthier.train.strategies._features import as_pseudo, guard, some, space_of

        if job.unlabelled:
            job = job.but(unlabelled=[job.unlabelled[at] for at in some(len(job.unlabelled), self.most, job.seed)])
        space = space_of(job, who=self.kind)
        strong = self._strong(space.model)
        texts, views = self._views(job, space.model, strong)  # views: float32 [copies, rows, width]
        classes = len(space.model.labels)

        def rounds(x: np.ndarray, y: np.ndarray, weights: np.ndarray, probe: np.ndarray) -> list[np.ndarray]:
            return [chances for chances, _ in self._rounds(classes, x, y, weights, space.u, views, probe)]

        job.progress.say("  asking held-out rows whether the unlabelled ones help")
        found = guard(space, rounds, folds=self.folds, seed=job.seed, ask=self.guard)
        number = self.rounds if found["rounds"] is None else found["rounds"]
        pseudo: list[Example] = []
        lineage = []
        if number:
            _, answers = self._rounds(classes, space.x, space.y, space.weights, space.u, views, space.x[:1],
                                      rounds=number)[-1]
            for at in map(int, np.flatnonzero(answers.max(1) >= self.threshold)):
                example, label = job.unlabelled[at], space.model.labels[int(answers[at].argmax())]
                lineage.append({"id": example.id, "where": example.origin.where, "label": label,
                                "confidence": round(float(answers[at].max()), 4), "copies": len(texts) or 1})
                changed = [(f"{example.id}-view{view}", copies[at]) for view, copies in enumerate(texts)] or \
                    [(example.id, example.input)]
                pseudo += [as_pseudo(example, label, step=self.kind, weight=self.weight / len(changed), id=id,
                                     input=text) for id, text in changed]
        job.progress.say(f"  {found['sentence']}" + (f" {len(lineage):,} rows answered" if lineage else ""))
        spec = job.spec
        if pseudo and not texts:  # images are changed anew each time they are seen
            spec = spec.but(augments=(*spec.augments, *strong))
        fitted = fit(job.but(train=[*job.train, *pseudo], unlabelled=(), spec=spec))
        return replace(fitted, summary={**fitted.summary, "guard": found, "labelled_rows": len(job.train),
                                        "pseudo_rows": len(lineage), "unlabelled_rows": len(job.unlabelled)},
                       artifacts={**fitted.artifacts, "pseudo.json": {"rounds": number, "rows": lineage}})

    def _strong(self, model: LabelModel) -> tuple[Augment | Unbound, ...]:
        reads = model.module.backbone.reads
        for one in self.strong:
            if one.reads != reads:
                raise SpecError(f"train.strategy.strong: '{one.kind}' changes {one.reads}s, and the model reads "
                                f"{reads}s")
        if self.strong:
            return self.strong
        from luthier.train.augments.colour import Colour
        from luthier.train.augments.erase import Erase
        from luthier.train.augments.translate import Translate
        from luthier.train.augments.word_dropout import WordDropout
        from luthier.train.augments.word_noise import WordNoise

        return (Translate(), Colour(), Erase()) if reads == "image" else (WordDropout(share=0.15), WordNoise(share=0.1))

    def _views(self, job: Job, model: LabelModel, strong: tuple[Augment | Unbound, ...]
               ) -> tuple[list[list[str]], np.ndarray]:
        """Changed texts by copy (none for images), and the features of the changed rows."""
        from dataclasses import replace

        import numpy as np

        from luthier.adapt import predict
        from luthier.train.augments import Setting, ready

        rows = model.rows(job.unlabelled, targets=False)
        image = model.module.backbone.reads == "image"
        setting = Setting(root=job.root, model=model, texts=[] if image else [str(e.input) for e in job.unlabelled],
                          cache=job.cache, progress=job.progress)
        bound = ready(strong, setting)
        texts, found = [], []
        for view in range(1 if image else self.views):
            chance = [np.random.default_rng([job.seed, 7, view, at]) for at in range(len(rows))]
            if image:
                data = [row.data for row in rows]
                for one in bound:
                    data = [one.apply(value, rng) for value, rng in zip(data, chance)]
                changed = [row.but(data=value) for row, value in zip(rows, data)]
            else:
                words = [str(example.input) for example in job.unlabelled]
                for one in bound:
                    words = [one.apply(text, rng) for text, rng in zip(words, chance)]
                texts.append(words)
                changed = model.rows([replace(example, input=text) for example, text in zip(job.unlabelled, words)],
                                     targets=False)
            found.append(predict.features(model, changed, cache=job.cache, progress=job.progress,
                                          what="features of changed rows"))
        return texts, np.stack(found)

    def _rounds(self, classes: int, x: np.ndarray, y: np.ndarray, weights: np.ndarray, u: np.ndarray, views: np.ndarray,
                probe: np.ndarray, *, rounds: int | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
        """For every round (0 is supervised): probabilities of `probe`, and the answers [unlabelled rows, classes] that
        were learned from."""
        import numpy as np

        from luthier.train.strategies._features import Quick

        quick = Quick(classes, strength=self.strength).fit(x, y, weights)
        found = [(quick.chances(probe), np.zeros((len(u), classes)))]
        for _ in range(self.rounds if rounds is None else rounds):
            answers = self.sharpened(quick.chances(u))
            sure = np.flatnonzero(answers.max(1) >= self.threshold)
            copies = views[:, sure].reshape(-1, x.shape[1])
            quick.fit(np.concatenate([x, copies]), np.concatenate([y, np.tile(answers[sure].argmax(1), len(views))]),
                      np.concatenate([weights, np.full(len(copies), self.weight / len(views))]))
            found.append((quick.chances(probe), answers))
        return found

    def sharpened(self, chances: np.ndarray) -> np.ndarray:
        """Answers float64 [rows, classes], aligned and sharpened; every row sums to 1."""
        import numpy as np

        if self.align:
            chances = chances / np.maximum(chances.mean(0, keepdims=True), 1e-9)
        powered = (chances / np.maximum(chances.max(1, keepdims=True), 1e-300)) ** (1 / self.temperature)
        return powered / np.maximum(powered.sum(1, keepdims=True), 1e-300)
