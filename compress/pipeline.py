"""The architecture in one table, and the loop that walks it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

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
from compress.stage import RunOptions, Stage, StageConfig
from compress.store import Artifact, Store
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
    Stage("quantize", ("data", "prune"), QuantizeConfig, quantize),
    Stage(
        "bench", ("data", "baselines", "prune", "quantize"), BenchConfig, bench, "gather", fingerprint=bench_fingerprint
    ),
    Stage("select", ("bench",), SelectConfig, select, "gather"),
    Stage(
        "pack",
        ("data", "baselines", "bench", "select", "prune", "quantize"),
        PackConfig,
        pack,
        "gather",
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
    """What a run has so far: the artifact of every step done, and the gate's word on every student's teacher."""

    artifacts: dict[tuple[str, Chain | None], Artifact] = field(default_factory=dict)
    gates: dict[str, GateReport] = field(default_factory=dict)
    choices: dict[str, TeacherChoice] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)


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


def run_pipeline(recipe: Recipe, store: Store, options: RunOptions) -> Run:
    """Walk the table; sealed steps are found, others built. Students whose teacher fails the gate are left out."""
    check_sources(recipe)
    run = Run()
    for step in steps(recipe):
        if step.chain is not None and step.stage.name == "distil":
            _choose_teacher(recipe, step, run, options)
        if step.chain is not None and step.stage.name == "distil" and step.chain.role == "student":
            _ask_gate(recipe, step.chain, run, options)
        if step.chain is not None and step.stage.name in AFTER_GATE and not _may_go_on(step.chain, run):
            continue
        if step.stage.name == "pack" and selected(run.artifacts) is None:
            continue
        start = time.monotonic()
        speaking = replace(options, log=partial(_say, options, step.title))
        artifact = store.get_or_build(step.stage, step.config, step_inputs(step, run.artifacts), speaking)
        run.artifacts[step.stage.name, step.chain] = artifact
        run.steps.append(step)
        options.log(f"{step.title:<32} " + ("sealed" if artifact.cached else f"{time.monotonic() - start:.1f} s"))
    return run


def _say(options: RunOptions, title: str, line: str) -> None:
    options.log(f"  {title}: {line}")


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


def _choose_teacher(recipe: Recipe, step: Step, run: Run, options: RunOptions) -> None:
    if step.chain is None or len(step.teachers) < 2 or step.chain.variant in run.choices:
        return
    choice = run.choices[step.chain.variant] = choose_teacher(_folders(step.teachers, run.artifacts))
    told = ", ".join(f"{name} {value:.4f}" for name, value in choice.valid.items())
    helps = source_helps(recipe, choice)
    verdict = "" if helps is None else f"; the source {'helps' if helps else 'does not help'}"
    options.log(f"{step.chain.variant} learns from {choice.chosen} (validation NDCG@10 {told}){verdict}")


def source_helps(recipe: Recipe, choice: TeacherChoice) -> bool | None:
    """Whether the chosen teacher saw a source domain; None where validation had no choice between with and without."""
    saw = {v.name: v.configs["source"].teaches for v in recipe.variants if v.name in choice.valid}
    return saw[choice.chosen] if len(set(saw.values())) > 1 else None


def _ask_gate(recipe: Recipe, chain: Chain, run: Run, options: RunOptions) -> None:
    if chain.variant in run.gates:
        return
    run.gates[chain.variant] = gate = gate_of(recipe, chain.variant, run.artifacts)
    verdict = "passed" if gate.passed else "failed: no distillation; the compressed control ships"
    options.log(
        f"teacher gate of {chain.variant}: teacher {gate.teacher_valid:.4f}, control {gate.control_valid:.4f}, "
        f"difference {gate.difference:+.4f} [{gate.ci95[0]:+.4f}, {gate.ci95[1]:+.4f}]: {verdict}"
    )


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


def _may_go_on(chain: Chain, run: Run) -> bool:
    return chain.role != "student" or run.gates[chain.variant].passed


def selected(artifacts: Mapping[tuple[str, Chain | None], Artifact]) -> str | None:
    found: str | None = read_json(artifacts["select", None].path / "choice.json")["selected"]
    return found
