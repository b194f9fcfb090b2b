"""What answers in the route `rag`: the base model, or one adapted to rows with passages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelm.config import ModelConfig
from tunelm.models import open_model, remote_base
from tunelm.models.base import ChatModel
from tunelm.models.budget import Wallet
from tunelm.models.prompted import PromptedModel
from tunelm.retrieval.chunks import Passage
from tunelm.retrieval.citations import CITE, cited
from tunelm.retrieval.index import Retriever
from tunelm.retrieval.model import Fits, fits_by, fitting_passages
from tunelm.retrieval.quality import gold_passages
from tunelm.retrieval.shown import with_passages
from tunelm.route_settings import LocalSettings, PromptSettings, RagSettings
from tunelm.routes.base import FitContext, Route
from tunelm.routes.programs.model import open_program
from tunelm.routes.programs.program import Program
from tunelm.types import Adapted, Example, Message, Request

Open = Callable[[ModelConfig], ChatModel]


@dataclass(frozen=True)
class Generator:
    """The part of a `rag` route that answers.

    Attributes:
        settings: the route's.
        wallet: pays where an endpoint charges.
        custom: opens a base model of the caller's own; None: the one that the config names.
    """

    settings: RagSettings
    wallet: Wallet | None = None
    custom: Open | None = None

    @property
    def route(self) -> Route | None:
        """The route that adapts it; None: it is the base as it is."""
        if self.settings.generator == "local":
            from tunelm.routes.local import LocalRoute

            return LocalRoute(LocalSettings())
        if self.settings.generator == "prompt":
            from tunelm.routes.prompt import PromptRoute

            own: dict[str, Any] = {"open_model": self.custom} if self.custom else {}
            return PromptRoute(PromptSettings(), self.wallet, **own)
        return None

    def instructions(self, ctx: FitContext) -> str:
        """The task's, and how to cite where that is wanted."""
        own = ctx.task.instructions
        return "\n".join(part for part in (own, CITE if self.settings.cite else "") if part)

    def fit(
        self, ctx: FitContext, passages: Sequence[Passage], retriever: Retriever
    ) -> Adapted | None:
        """Adapt it to rows that show their passages; None where it is the base.

        `rows_with_fewer_passages` in the detail counts those in which not all had room.
        """
        route = self.route
        if route is None:
            return None
        its, shortened = self.context(ctx, passages, retriever)
        its.work.mkdir(parents=True, exist_ok=True)
        made = route.fit(its)
        return dataclasses.replace(
            made, detail={**made.detail, "rows_with_fewer_passages": shortened}
        )

    def open(self, config: ModelConfig, system: str, made: Adapted | None) -> ChatModel:
        """The model that answers, from what `fit` made."""
        route = self.route
        if route is None or made is None:
            base = self.custom(config) if self.custom else open_model(config, wallet=self.wallet)
            return self.dressed(base, system, None)
        return route.open(made)

    def dressed(self, model: ChatModel, system: str, made: Adapted | None) -> ChatModel:
        """A loaded model (with the adapter on it, if one was trained) behind its prompt."""
        if made is not None and self.settings.generator == "prompt":
            return open_program(Program.load(Path(made.folder)), model)
        return PromptedModel(model, system if made is None else made.system)

    def context(
        self, ctx: FitContext, passages: Sequence[Passage], retriever: Retriever
    ) -> tuple[FitContext, int]:
        """(what its route is given, the rows of it in which not all passages had room).

        The rows show the passages found for them, as in use. With `cite`, the gold answer of a
        row whose passage is known and shown cites it.
        """
        task = ctx.task.model_copy(update={"instructions": self.instructions(ctx)})
        fits = self._fits(ctx)
        places = {passage.id: place for place, passage in enumerate(passages)}
        shortened = 0

        def shown(rows: Sequence[Example]) -> list[Example]:
            nonlocal shortened
            requests = [Request(row.messages, max_tokens=task.max_tokens) for row in rows]
            fitting = fitting_passages(retriever, passages, self.settings.top_k, requests, fits)
            gold = gold_passages(rows, passages) if self.settings.cite else {}
            made: list[Example] = []
            for row, (kept, found) in zip(rows, fitting, strict=True):
                shortened += len(kept) < found
                own = gold.get(row.id, frozenset())
                numbers = [n for n, p in enumerate(kept, 1) if places[p.id] in own]
                marked = [cited(row.answers[0], n) for n in numbers[:1]]
                messages = with_passages(row.messages, kept)
                answers = (*marked, *row.answers)
                made.append(dataclasses.replace(row, messages=messages, answers=answers))
            return made

        train, dev, work = shown(ctx.train), shown(ctx.dev), ctx.work / "generator"
        its = dataclasses.replace(ctx, task=task, train=train, dev=dev, work=work, corpus=None)
        return its, shortened

    def _fits(self, ctx: FitContext) -> Fits | None:
        """Whether a row fits, judged as when the model answers; None for a model elsewhere."""
        if self.custom or remote_base(ctx.model):
            return None
        from tunelm.models.loading import describe_base, load_tokenizer

        context = describe_base(ctx.model)["context"] or ctx.model.max_length
        system = self.instructions(ctx)
        head = (Message("system", system),) if system else ()
        return fits_by(
            load_tokenizer(ctx.model),
            min(context, ctx.model.max_length),
            lambda messages: (*head, *messages),
        )
