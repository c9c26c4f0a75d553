"""The architecture in one table, and what a step of a recipe reads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.result import Search
from compress.baselines.run import BaselinesConfig, train_baselines
from compress.bench import BenchConfig, bench, bench_fingerprint
from compress.chain import Chain, Role, gathered_name
from compress.data.load import DataConfig, load_data, source_digests
from compress.distil.distil import DistilConfig, distil
from compress.gate import GateReport, TeacherChoice, best_teacher, check_gate, choose_teacher
from compress.models.folder import read_json
from compress.pack import PackConfig, key_fingerprint, pack
from compress.prune.prune import PruneConfig, prune
from compress.quantize.quantize import QuantizeConfig, quantize
from compress.recipe import ROLES, TEACHER_STAGES, Recipe, Variant
from compress.select import SelectConfig, select
from compress.stage import Stage, StageConfig
from compress.store import Artifact
from compress.teacher.mix import MixConfig, mix
from compress.teacher.pretrain import PretrainConfig, backbone_digests, pretrain
from compress.teacher.transfer import SourceConfig, TargetConfig, given_digests, train_source, train_target
from deploy.errors import UsageError

STAGES = (
    Stage("data", (), DataConfig, load_data, "shared", fingerprint=source_digests),
    Stage("baselines", ("data",), BaselinesConfig, train_baselines, "shared", version=2),
    Stage("pretrain", ("data",), PretrainConfig, pretrain, fingerprint=backbone_digests),
    Stage("source", ("data", "pretrain"), SourceConfig, train_source),
    Stage("target", ("data", "source"), TargetConfig, train_target, version=2, fingerprint=given_digests),
    Stage("mix", ("data", "baselines", "target"), MixConfig, mix),
    Stage("distil", ("data", "mix"), DistilConfig, distil),
    Stage("prune", ("data", "mix", "distil"), PruneConfig, prune),
    Stage("quantize", ("data", "prune"), QuantizeConfig, quantize, version=3),
    Stage(
        "bench",
        ("data", "baselines", "prune", "quantize"),
        BenchConfig,
        bench,
        "gather",
        version=3,
        fingerprint=bench_fingerprint,
    ),
    Stage("select", ("bench",), SelectConfig, select, "gather"),
    Stage(
        "pack",
        ("data", "baselines", "bench", "select", "prune", "quantize"),
        PackConfig,
        pack,
        "gather",
        version=2,
        fingerprint=key_fingerprint,
    ),
)


@dataclass(frozen=True)
class Step:
    """One stage of one chain; `chain` is None for stages that run once."""

    stage: Stage
    chain: Chain | None
    config: StageConfig
    members: tuple[Chain, ...] = ()  # chains of other variants whose models it reads
    teachers: Mapping[str, Sequence[Chain]] = field(default_factory=dict)  # variants to learn from, a chain per seed

    @property
    def title(self) -> str:
        return self.stage.name if self.chain is None else f"{self.stage.name} {self.chain.name}"


@dataclass
class Run:
    """What a run has so far: the artifact of every step done, and the gate's word on every student's teacher.

    `aside` is what a search built for trials that are no candidates.
    """

    artifacts: dict[tuple[str, Chain | None], Artifact] = field(default_factory=dict)
    gates: dict[str, GateReport] = field(default_factory=dict)
    choices: dict[str, TeacherChoice] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    search: Search | None = None
    aside: list[tuple[Step, Artifact]] = field(default_factory=list)


def steps(recipe: Recipe) -> Iterator[Step]:
    """Every step of a recipe in the order it runs: shared stages, the chains of one role after the other, what gathers
    them. Within a role stage by stage: a mix finds all teachers there, the gate the teachers of all seeds."""
    for stage in STAGES:
        if stage.scope == "shared":
            yield Step(stage, None, recipe.shared[stage.name])
    for role in ROLES:
        for stage in STAGES:
            for variant in recipe.variants if stage.scope == "variant" else ():
                if variant.role == role:
                    yield from _seeds_of(stage, variant, recipe)
    for stage in STAGES:
        if stage.scope == "gather":
            yield Step(stage, None, recipe.shared[stage.name])


def _seeds_of(stage: Stage, variant: Variant, recipe: Recipe) -> Iterator[Step]:
    if variant.teachers and stage.name in TEACHER_STAGES:
        return
    for seed in recipe.seeds:
        config = variant.configs[stage.name].model_copy(update={"seed": seed})
        members = tuple(Chain(v.role, v.name, seed) for v in recipe.variants if v.name in config.reads)
        yield Step(stage, Chain(variant.role, variant.name, seed), config, members, _teachers(recipe, variant))


def _teachers(recipe: Recipe, variant: Variant) -> dict[str, list[Chain]]:
    """Who may teach a variant: those it names, else the teacher of its own chain."""
    if not variant.teachers:
        return {variant.name: [Chain(variant.role, variant.name, seed) for seed in recipe.seeds]}
    return {name: [Chain("teacher", name, seed) for seed in recipe.seeds] for name in variant.teachers}


def check_sources(recipe: Recipe) -> None:
    """Ask for all that the steps read from outside the store (data, language models, keys) before any work starts.

    Raises UsageError with every mistake.
    """
    mistakes: dict[str, None] = {}
    for step in steps(recipe):
        try:
            step.stage.fingerprint(step.config)
        except UsageError as error:
            mistakes |= dict.fromkeys(error.lines)
    if mistakes:
        raise UsageError(mistakes)


AFTER_GATE = ("distil", "prune", "quantize")


def step_inputs(step: Step, artifacts: Mapping[tuple[str, Chain | None], Artifact]) -> dict[str, Artifact]:
    """The artifacts a step reads, by the names its function knows them under. Raises KeyError where one is missing."""
    found = {gathered_name("member", chain): artifacts[MEMBER_STAGE[chain.role], chain] for chain in step.members}
    for name in step.stage.inputs:
        if step.stage.scope == "gather" and BY_NAME[name].scope == "variant":
            every = [(chain, a) for (stage, chain), a in artifacts.items() if stage == name and chain is not None]
            found |= {gathered_name(name, chain): artifact for chain, artifact in every}
        elif name == "mix" and step.chain is not None:
            found[name] = artifacts[name, taught_by(step, artifacts, step.chain.seed)]
        else:
            found[name] = artifacts[name, step.chain if BY_NAME[name].scope == "variant" else None]
    return found


def taught_by(step: Step, artifacts: Mapping[tuple[str, Chain | None], Artifact], seed: int) -> Chain:
    """The chain whose teacher a step learns from, of one seed. Raises KeyError where a candidate is not there yet."""
    best = best_teacher(_folders(step.teachers, artifacts))
    return next(chain for chain in step.teachers[best] if chain.seed == seed)


def _folders(
    teachers: Mapping[str, Sequence[Chain]], artifacts: Mapping[tuple[str, Chain | None], Artifact]
) -> dict[str, list[Path]]:
    return {name: [artifacts["mix", chain].path for chain in chains] for name, chains in teachers.items()}


MEMBER_STAGE: Mapping[Role, str] = {"control": "distil", "teacher": "target"}
"""What a variant gives to another one's mix: a control its student, a teacher itself before its own mix."""
BY_NAME = {stage.name: stage for stage in STAGES}


def teacher_choice(step: Step, artifacts: Mapping[tuple[str, Chain | None], Artifact]) -> TeacherChoice:
    """Which of several teachers validates best. Raises KeyError where one is not there yet."""
    return choose_teacher(_folders(step.teachers, artifacts))


def source_helps(recipe: Recipe, choice: TeacherChoice) -> bool | None:
    """Whether the chosen teacher saw a source domain; None where validation had no choice between with and without."""
    saw = {v.name: v.configs["source"].teaches for v in recipe.variants if v.name in choice.valid}
    return saw[choice.chosen] if len(set(saw.values())) > 1 else None


def gate_of(recipe: Recipe, variant: str, artifacts: Mapping[tuple[str, Chain | None], Artifact]) -> GateReport:
    """Raises KeyError where a teacher or a control is not there yet."""
    candidates = _folders(_teachers(recipe, next(v for v in recipe.variants if v.name == variant)), artifacts)
    teachers = candidates[best_teacher(candidates)]
    controls = [
        [artifacts["distil", Chain("control", other.name, seed)].path for seed in recipe.seeds]
        for other in recipe.variants
        if other.role == "control"
    ]
    return check_gate(teachers, controls)


def selected(artifacts: Mapping[tuple[str, Chain | None], Artifact]) -> str | None:
    found: str | None = read_json(artifacts["select", None].path / "choice.json")["selected"]
    return found
