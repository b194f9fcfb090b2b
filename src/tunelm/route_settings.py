"""The settings of each kind of route, as they stand in a task file."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """One section of a task file: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def _holds_no_secret(value: str | None) -> str | None:
    if value and ("@" in value or "?" in value):
        raise ValueError("an address without user name, password and query is expected")
    return value


Address = Annotated[str | None, AfterValidator(_holds_no_secret)]
Variable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]
Usd = Annotated[float, Field(ge=0)]


class ConstantSettings(Section):
    """A control: the one train answer that fits the other train answers best."""

    kind: Literal["constant"] = "constant"


class RuleSettings(Section):
    """Answers written by a rule, without any model: what adapting one has to beat."""

    kind: Literal["rule"] = "rule"
    rule: Literal["email", "docstring"]
    """`email`: a reply of set phrases; `docstring`: what a function's signature says."""


class NearestSettings(Section):
    """The answer of the train row nearest by BM25, its question and answer searched together."""

    kind: Literal["nearest"] = "nearest"
    decline: str | None = None
    """Said where no train row is near enough, by a threshold fixed on dev; None: never."""


class ClassifierSettings(Section):
    """A classifier without a language model: logistic regression on the words of a text."""

    kind: Literal["classifier"] = "classifier"
    features: str = "tfidf"
    """`tfidf`, or a sentence-transformers model (a folder, or a hub id with its owner)."""


class EndpointSettings(Section):
    """A model, by its name at an endpoint that speaks the OpenAI protocol."""

    model: str | None = None
    """None: the base model. Else the name of a model at `base_url`."""
    base_url: Address = None
    """An endpoint that speaks the OpenAI protocol, such as http://127.0.0.1:11434/v1."""
    api_key_env: Variable | None = None
    """The environment variable that holds the key, which itself never stands in a file.

    None: OPENAI_API_KEY for OpenAI itself, and no key for any other endpoint."""
    usd_per_million_in: Usd | None = None
    usd_per_million_out: Usd | None = None
    """What the endpoint charges for a million tokens; 0 where it is one's own."""


class BaselineSettings(EndpointSettings):
    """A model as it is, with the task's instructions: the base, or one behind an API."""

    kind: Literal["baseline"] = "baseline"


class LimitSettings(Section):
    """What a search may use at most; None: no limit. Whichever is reached first ends it."""

    calls: Annotated[int, Field(ge=1)] | None = None
    tokens: Annotated[int, Field(ge=1)] | None = None
    """Prompt and completion tokens together."""
    usd: Annotated[float, Field(gt=0)] | None = None
    minutes: Annotated[float, Field(gt=0)] | None = None


class StepSettings(Section):
    """One step of a program: a call of its own, whose answer the later steps are shown."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")]
    instructions: Annotated[str, Field(min_length=1)]


class PromptSettings(Section):
    """A prompt program, written by hand or found by a search on dev."""

    kind: Literal["prompt"] = "prompt"
    strategy: Literal[
        "auto", "zero-shot", "labeled", "knn", "random-search", "mipro", "gepa", "simba"
    ] = "random-search"
    """How it is found; `auto` first tests whether there is anything to gain."""
    program: Literal["answer", "cot", "steps"] = "answer"
    """The answer alone, reasoning first in the same answer, or named steps before it."""
    steps: tuple[StepSettings, ...] = ()
    """The steps before the answer, where `program` is `steps`."""
    reasoning_tokens: Annotated[int, Field(ge=1)] = 128
    """Most tokens of the reasoning, and of each step before the answer."""
    demos: Annotated[int, Field(ge=1)] = 4
    """Most demonstrations in the prompt."""
    candidates: Annotated[int, Field(ge=1)] = 6
    """Programs tried by random search, beside zero-shot and plain few-shot; with MIPROv2 and
    SIMBA how many candidates are proposed."""
    trials: Annotated[int, Field(ge=1)] = 12
    """Full trials of MIPROv2, steps of SIMBA, and times the dev rows that GEPA may ask."""
    threads: Annotated[int, Field(ge=1)] = 16
    """Concurrent calls, run as batches by a local model."""
    proposer: EndpointSettings | None = None
    """A stronger model that writes and reflects on instructions; None: the model itself."""
    limit: LimitSettings = LimitSettings()


class RagSettings(Section):
    """Passages of the corpus found for each question and put before it."""

    kind: Literal["rag"] = "rag"
    top_k: Annotated[int, Field(ge=1)] = 4
    """Passages put before a question."""
    passage_words: Annotated[int, Field(ge=10)] = 80
    """Longest passage; a longer paragraph is cut at the ends of sentences."""
    overlap_words: Annotated[int, Field(ge=0)] = 15
    """Words at the end of a passage that the next one repeats."""
    retriever: str = "bm25"
    """`bm25`, or a sentence-transformers model (a folder, or a hub id with its owner), which is
    fused with BM25."""
    tune: bool = False
    """Fine-tune the sentence-transformers model on the train rows, with hard negatives."""
    generator: Literal["base", "prompt", "local"] = "base"
    """What answers: the base model as it is, or adapted on rows that show their passages."""
    cite: bool = False
    """Ask for the numbers of the passages an answer rests on, and check them. The marks are part
    of the answer, and of what is scored."""
    min_support: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of an answer's content words that a cited passage must hold to support it."""


class CloudSettings(Section):
    """A job at a provider that speaks the OpenAI fine-tuning protocol; by default our own server.

    Where a setting is None, `local` trains as the route `local` does, without early stopping.
    """

    kind: Literal["cloud"] = "cloud"
    provider: str = "local"
    """`local`: `tunelm serve`, started for the job; or a provider that tunelm knows."""
    base_url: Address = None
    """Where the provider is, or another endpoint that speaks the protocol."""
    model: str | None = None
    """The model to tune there; None: the base model, which only `local` has."""
    deployment: str | None = None
    """What the fine-tune answers as, where the provider wants it deployed first."""
    api_key_env: Variable | None = None
    """The environment variable that holds the key; None: the provider's usual one."""
    n_epochs: Literal["auto"] | Annotated[int, Field(ge=1)] | None = None
    """None: 8 with `local`, 3 elsewhere."""
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] | None = None
    """None: 8 with `local`, "auto" elsewhere."""
    learning_rate_multiplier: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    suffix: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] | None = None
    """Part of the fine-tune's name; None: the task's name."""
    usd_per_million_train: Usd | None = None
    usd_per_million_in: Usd | None = None
    usd_per_million_out: Usd | None = None
    """What the provider charges; None: what the price list says."""
    price_as: Annotated[str, Field(pattern=r"^[^/]+/.+$")] | None = None
    """PROVIDER/MODEL whose list price is multiplied by the tokens that `local` counted."""
    accept_shutdown: date | None = None
    """The day on which the fine-tune will end, to train it all the same."""
    poll_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds between two looks at the job; None: 0.5 on this machine, 10 elsewhere."""
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    """Longest wait for the job; None: as long as it takes."""


HOW_TO_TRAIN = ("processes", "sharding", "gradient_checkpointing", "attention", "compile")
"""Settings of a `LocalSettings` that change how a machine trains, and not what comes out."""


def what_is_made(settings: Any) -> Any:
    """Settings, as JSON, without those that only say how a machine trains, at any depth.

    >>> what_is_made({"kind": "hybrid", "training": {"r": 4, "processes": 2}})
    {'kind': 'hybrid', 'training': {'r': 4}}
    """
    if not isinstance(settings, dict):
        return settings
    found: dict[str, Any] = settings
    return {k: what_is_made(v) for k, v in found.items() if k not in HOW_TO_TRAIN}


class LocalSettings(Section):
    """LoRA by PEFT, or full fine-tuning, on this machine."""

    kind: Literal["local"] = "local"
    method: Literal["lora", "rslora", "dora", "rsdora", "qlora", "full"] = "lora"
    """`qlora`: LoRA on a base whose linear layers are held in 4 bits."""
    r: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """None: ten times what full fine-tuning of a model this wide would take."""
    loraplus_ratio: Annotated[float, Field(ge=1)] | None = None
    """LoRA+: the learning rate of B as a multiple of A's (arXiv 2402.12354); None: the same."""
    neftune_alpha: Annotated[float, Field(gt=0)] | None = None
    """NEFTune: noise on the embeddings while training (arXiv 2310.05914); None: none."""
    epochs: Annotated[float, Field(gt=0)] = 8
    max_steps: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Rows a step; ignored when batch_tokens is set."""
    batch_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens a step, instead of rows."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    grad_clip: Annotated[float, Field(gt=0)] = 1.0
    stop_on: Literal["dev_loss", "metric", "none"] = "dev_loss"
    """What early stopping looks at: dev loss, the task's metric by generation, or nothing."""
    patience: Annotated[int, Field(ge=1)] = 2
    """Evaluations (one an epoch) without improvement before stopping."""
    shuffle_answers: bool = False
    """A control: train on answers dealt out to the wrong questions."""
    attention: Literal["auto", "sdpa", "flash_attention_2"] = "auto"
    """What computes attention in training; `auto`: what the machine has, tried before a run."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; `auto`: on a GPU, where the run is long enough to pay for it."""
    processes: Annotated[int, Field(ge=1)] | None = None
    """How many processes train together on a machine; None: one for each GPU, or one."""
    sharding: Literal["none", "full"] = "none"
    """With several processes: whether each holds the model (DDP), or a part of it (FSDP2)."""
    gradient_checkpointing: bool = False
    """Compute activations twice rather than keep them: less memory, about a third more time."""

    @model_validator(mode="after")
    def _fits_the_method(self) -> LocalSettings:
        if self.method == "full" and self.loraplus_ratio is not None:
            raise ValueError("loraplus_ratio is for LoRA's matrix B, and full fine-tuning has none")
        if self.method == "qlora" and self.sharding == "full":
            raise ValueError('qlora: weights in 4 bits are not sharded; take sharding = "none"')
        asked = self.compile == "on" or self.attention == "flash_attention_2"
        if asked and self.sharding == "full":
            raise ValueError(
                'attention and compile are tried on a whole model; with sharding = "full" leave '
                'them at "auto"'
            )
        return self


class HybridSettings(Section):
    """Optimize the prompt, tune the weights on the program's rows, optimize again."""

    kind: Literal["hybrid"] = "hybrid"
    weights: Literal["local", "cloud"] = "local"
    rows: Literal["gold", "traces"] = "gold"
    """What is trained on: gold answers behind the program's prompt, or the program's own
    answers that the metric passes."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.9
    """What a trace must score to be trained on."""
    training: LocalSettings = LocalSettings()
    """How the weights are trained where `weights` is `local`."""


class DistillSettings(Section):
    """A small student, trained on what a teacher answers."""

    kind: Literal["distill"] = "distill"
    teacher: EndpointSettings | None = None
    """A model behind an API; None: a route of the same run."""
    teacher_route: str | None = None
    """The name of that route; None: the best on dev of those before."""
    student: str | None = None
    """The model that learns; None: `tunelm-nano-small` where the base is `tunelm-nano`."""
    keep: Literal["gold", "agreement", "all"] = "gold"
    """Which of the teacher's answers are trained on: those that the metric passes, those that
    several samples agree on, or all."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.9
    """What an answer must score to pass, and the share of samples that must agree."""
    samples: Annotated[int, Field(ge=2)] = 5
    """Answers sampled a row where `keep` is `agreement`."""
    rationale: bool = False
    """Have the teacher reason first, and train the student on reasoning and answer."""
    unlabelled: Path | None = None
    """Further questions without answers, for the teacher (JSONL with `question`)."""
    training: LocalSettings = LocalSettings()


RouteSettings = Annotated[
    ConstantSettings
    | RuleSettings
    | NearestSettings
    | ClassifierSettings
    | BaselineSettings
    | PromptSettings
    | RagSettings
    | CloudSettings
    | LocalSettings
    | HybridSettings
    | DistillSettings,
    Field(discriminator="kind"),
]

KINDS: dict[str, type[Section]] = {
    "constant": ConstantSettings,
    "rule": RuleSettings,
    "nearest": NearestSettings,
    "classifier": ClassifierSettings,
    "baseline": BaselineSettings,
    "prompt": PromptSettings,
    "rag": RagSettings,
    "cloud": CloudSettings,
    "local": LocalSettings,
    "hybrid": HybridSettings,
    "distill": DistillSettings,
}
