"""What the units of a plan will compute, phase by phase, before anything is loaded.

Plugins say what they cost (`Metric.expected_cost`, `Attack.budget` and so on); this
adds up what the harness does besides: training, certificates, diagnostics, scoring
from scratch. `harness.suite.pricing` turns it into seconds and memory on a device.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from harness.api import CostContext, ModelShape, stated_budget
from harness.base import Store
from harness.data import Corpora
from harness.models import RecoverySection, divisor
from harness.records import Cost, Phase
from harness.suite.devices import Precision, Work
from harness.suite.experiment import Experiment, Placed
from harness.suite.identity import EXAMINED
from harness.suite.plan import CellPlan, Plan, Unit, VariantPlan
from harness.suite.texts import Texts
from harness.suite.values import depth, trained_values, values_of

PROBE_FORWARD = 1 + 1 + 16 + 2 * 2 + 4 * 4
"""Forward passes for an example that a subject is examined at: for the gradient, its
own loss, 16 flips, two losses alone, made twice, and four slopes of four steps."""
REPLAYED = 4 * 5
"""Passes of the replay for a cell: four rows, clean, attacked and at checkpoints."""
RESERVED = 0.9
"""Of a device's memory, what training fills where a suite does not say."""
EXAMINED_VECTORS, WHOLE_JACOBIANS, JACOBIAN_ROWS = 64, 256, 16
"""Of a certificate: how many vectors a network is examined at, up to which width all
rows of its Jacobian are taken, and else how many."""
DISTINCT = 0.6
"""Of the prompts that a universal attack holds at its checkpoints, how many differ, on
average: a trigger that nothing better replaces is scored once."""
DRAWN = 0.6
"""Of the gradients that a budget pays for, how many a search takes: none a second time
at the prompt that it looked at last."""
CHECKPOINT_COPIES = 2
"""Checkpoints of a training that are kept at once."""
TOKENIZED_PER_S = 5e5
"""Tokens that a tokenizer library makes in a second; the store keeps them."""
_ROWS_ON_A_CPU = 8
_SCORED_AT_ONCE = 64
_FLOAT = 4
_ROW_BYTES = 20_000.0
"""Of an example in a cell's samples, on disk."""


@dataclass(frozen=True)
class Part:
    """One phase of a unit: what it computes, and what it asks of a device."""

    cost: Cost
    """Without seconds and memory, which depend on the device."""
    work: Work
    bytes_needed: float = 0.0
    """Device memory at its peak, besides what is used without a model; of training,
    what is needed whatever the micro-batch."""
    bytes_a_row: float = 0.0
    """What each block of a micro-batch needs besides."""
    rows: int | None = 0
    """The micro-batch; None for as many as fit."""
    most_rows: int = 0
    """Blocks in an optimizer step."""

    def memory(self, room: float) -> float:
        """Return the bytes at its peak on a device that has so much `room`."""
        return self.bytes_needed + self.bytes_a_row * self.rows_in(room)

    def rows_in(self, room: float) -> int:
        """Return the micro-batch on a device with so much room, at least 1."""
        if self.rows is not None:
            return min(self.rows, self.most_rows)
        return max(1, min(self.most_rows, self.rows_that_fit(RESERVED * room)))

    def rows_that_fit(self, room: float) -> int:
        """Return the largest micro-batch that fits; 0 for none."""
        left = room - self.bytes_needed
        return max(0, int(left / self.bytes_a_row)) if self.bytes_a_row else 0


@dataclass(frozen=True)
class UnitCost:
    """What one unit will compute."""

    parts: Mapping[Phase, Part]
    """What is left to do: without the making of a subject that the store has."""
    whole: Mapping[Phase, Part]
    """All that it is made of, as its record will have it."""
    disk_bytes: float = 0.0
    """What it leaves on disk."""
    temporary_bytes: float = 0.0
    """What it holds on disk besides, until its subject is made."""


@dataclass(frozen=True)
class PlanCosts:
    """What a whole plan will compute."""

    units: Mapping[str, UnitCost]
    """By the id of the unit; units of models of unknown size are not among them."""
    shapes: Mapping[str, ModelShape | None]
    """The sizes of the models, by label."""
    replay: Work
    """What the replay of all cells at the end computes."""
    assumptions: tuple[str, ...]
    """Sentences about what was not known and is assumed."""


def plan_costs(plan: Plan, store_root: Path) -> PlanCosts:
    """Say what each unit of a plan computes, whether or not it is done already."""
    experiment = plan.experiment
    shapes = {label: model.shape() for label, model in experiment.models.items()}
    assumptions = [
        f"models.{label}: its size is not known, so its units cost nothing here"
        for label, shape in shapes.items()
        if shape is None
    ]
    counters = {
        label: _Counter(experiment, label, shape, Store(store_root), assumptions)
        for label, shape in shapes.items()
        if shape is not None
    }
    units: dict[str, UnitCost] = {}
    for unit in plan.units:
        counter = counters.get(unit.variant.model)
        if counter is not None:
            units[unit.id] = counter.unit(unit)
    replays = [
        counters[label].replays(sum(x.variant.model == label for x in plan.cells))
        for label in counters
        if experiment.suite.diagnostics != "none"
    ]
    noted = tuple(dict.fromkeys(assumptions))
    return PlanCosts(units, shapes, sum(replays, Work()), noted)


@dataclass
class _Counter:
    """Counts what the units of one model compute."""

    experiment: Experiment
    label: str
    shape: ModelShape
    store: Store
    assumptions: list[str]
    _prepared: bool = False
    _tokenized: bool = False
    _cells: dict[Hashable, tuple[Placed, Mapping[Phase, Part]]] = field(
        default_factory=dict
    )

    def replays(self, cells: int) -> Work:
        """Return what replaying so many cells asks of a device."""
        cost = self.shape.forward(cells * REPLAYED, *self.context.pair)
        return self._part(cost, times=0).work

    def unit(self, unit: Unit) -> UnitCost:
        if isinstance(unit, VariantPlan):
            return self._variant(unit)
        assert isinstance(unit, CellPlan)  # there is no third kind
        parts = self._alike(unit)
        return UnitCost(parts, parts, disk_bytes=_ROW_BYTES * self._count(unit))

    # --- variants -------------------------------------------------------------------

    def _variant(self, plan: VariantPlan) -> UnitCost:
        weights = float(self.shape.parameters)
        metrics: dict[Phase, Part] = {}
        if self._measures(plan):
            metrics["metrics"] = self._metrics(plan)
        made = self.store.has("subjects", plan.subject_key)
        prepared = Cost() if made else self._preparation()
        whole: dict[Phase, Part] = {
            "load": self._loading(2, prepared),
            "train": self._training(plan),
            "certify": self._part(
                self._certifying(), times=2, layers=2 * depth(self.shape)
            ),
            "freeze": self._part(Cost(), weights=2 * weights),
            **metrics,
        }
        if made:
            return UnitCost({"load": self._loading(1), **metrics}, whole)
        return UnitCost(
            whole,
            whole,
            disk_bytes=_FLOAT * weights,
            temporary_bytes=CHECKPOINT_COPIES * 3 * _FLOAT * weights,
        )

    def _certifying(self) -> Cost:
        """Count the Jacobians of two certificates: all their rows in small networks."""
        rows = self.shape.width
        if rows > WHOLE_JACOBIANS:
            rows = JACOBIAN_ROWS
        return Cost(flops=2.0 * EXAMINED_VECTORS * rows * self.shape.feed_forward)

    def _loading(self, times: int, prepared: Cost | None = None) -> Part:
        weights, cost = times * float(self.shape.parameters), prepared or Cost()
        values = trained_values(self.shape, cost)
        return self._part(cost, weights=weights, times=times, values=values)

    def _preparation(self) -> Cost:
        """Return what the first load of a model that is made here costs besides."""
        if self._prepared:
            return Cost()
        self._prepared = True
        adapter = self.experiment.models[self.label]
        return adapter.preparation(self.store.root)

    def _training(self, plan: VariantPlan) -> Part:
        """Count the start of an arm, and its recovery."""
        suite, constraint = self.experiment.suite, self.experiment.arms[plan.arm]
        cost = constraint.expected_cost(self.context)
        section = suite.recovery
        if section is None or not suite.trains(plan.arm):
            return self._part(cost, needed=self._weights_bytes)
        shape = self._block(section)
        blocks = section.steps(shape.tokens) * section.blocks_per_step(shape.tokens)
        again = 2 if constraint.retraces else 1
        cost += self._evaluations(section)
        cost += self._attacked(plan, section, blocks)
        values = values_of(self.shape, cost)
        trained = self.shape.training(again * blocks, *shape.padded)
        cost, values = cost + trained, values + trained_values(self.shape, trained)
        precision: Precision = "bfloat16" if section.precision == "bf16" else "float32"
        cost += self._tokenizing(section)
        fixed, a_row = training_bytes(
            self.shape, section, copies=constraint.trained_copies
        )
        part = self._part(
            cost,
            precision=precision,
            needed=fixed,
            values=values,
            **self._passes(section, shape, again * blocks),
        )
        # A third more where layers run again, which no ledger counts.
        share = (4 / 3 if section.checkpointing else 1.0) / section.devices
        return replace(
            part,
            work=replace(part.work, flops=share * part.work.flops),
            bytes_a_row=a_row,
            rows=section.micro_batch,
            most_rows=_most_rows(section, shape.tokens),
        )

    def _passes(
        self, section: RecoverySection, shape: _Block, blocks: int
    ) -> dict[str, float]:
        """Return what the passes of a training touch, however long they are.

        Each step reads and writes weights, gradients and the optimizer's two moments;
        each pass makes gradients and adds them to those there are. Back, a layer
        launches as much as twice forward.
        """
        passes, steps = blocks / shape.rows, section.steps(shape.tokens)
        return {
            "weights": self.shape.parameters * (4 * steps + 2 * passes),
            "layers": 3 * passes * depth(self.shape),
        }

    def _tokenizing(self, section: RecoverySection) -> Cost:
        """Return the seconds of making tokens: the first variant does it for all."""
        if self._tokenized:
            return Cost()
        self._tokenized = True
        return Cost(seconds=section.tokens / TOKENIZED_PER_S)

    def _block(self, section: RecoverySection) -> _Block:
        most = section.context
        if not self.shape.encoder_decoder:  # every token is read and scored
            return _Block(most, (1.0, float(most)), _rows(section, most))
        pair = self.texts.pair(section.corpus, most, most)
        rows = _rows(section, sum(pair))
        return _Block(sum(pair), self.texts.padded(section.corpus, most, rows), rows)

    def _evaluations(self, section: RecoverySection) -> Cost:
        if section.validation is None:
            return Cost()
        shape = self._block(section)
        steps = section.steps(shape.tokens)
        times = 1 + -(-steps // section.evaluate_every)
        size = self.texts.size(section.validation)
        there = size.documents * (size.tokens + (size.reference_tokens or 0))
        tokens = min(section.evaluation_tokens, there)
        return self.shape.forward(times * tokens / shape.tokens, *shape.padded)

    def _attacked(
        self, plan: VariantPlan, section: RecoverySection, blocks: int
    ) -> Cost:
        """Count the attack that an arm trains against."""
        how = self.experiment.suite.arms[plan.arm].disturbs
        attack = self.experiment.adversaries.get(plan.arm)
        if how is None or how.adversarial is None or attack is None:
            return Cost()
        count, half = how.adversarial.share * blocks, section.context / 2
        budget = stated_budget(attack, max(1, round(count)))
        forward = self.shape.forward(count * budget.forward, half, half)
        return forward + self.shape.gradient(count * budget.backward, half, half)

    def _measures(self, plan: VariantPlan) -> bool:
        return (
            bool(plan.identity["metrics"]) or plan.identity["diagnostics"] is not None
        )

    def _metrics(self, plan: VariantPlan) -> Part:
        cost = Cost()
        for label in plan.identity["metrics"]:
            cost += self.experiment.metrics[label].expected_cost(self.context)
        times = len(plan.identity["metrics"])
        if plan.identity["diagnostics"] is not None:
            cost, times = cost + self._probes(*self.context.pair), times + 1
        # See `Subject.faster_products`; the few probes among them are in float32.
        products: Precision = "float32" if self._precision == "float32" else "tf32"
        return self._part(
            cost, precision=products, times=times, needed=self._search_bytes
        )

    def _probes(self, *pair: float) -> Cost:
        """Count what examining a subject costs, at prompts and references so long."""
        examples = self.experiment.suite.examples
        count = min(EXAMINED, examples.test.count) if examples else 0
        return self.shape.forward(count * PROBE_FORWARD, *pair) + self.shape.gradient(
            count, *pair
        )

    # --- cells ----------------------------------------------------------------------

    def _alike(self, plan: CellPlan) -> Mapping[Phase, Part]:
        """Return what a cell computes: the same as others that differ in nothing else.

        What is kept holds the attacks, so that no other object gets their identity.
        """
        placed = self.experiment.placed(plan.attack, plan.scene)
        count = self._count(plan)
        own = bool(plan.reads), len(plan.borrows), "examined" in plan.identity
        key = id(placed.attack), id(placed.matched), placed.share, count, own
        if key not in self._cells:
            self._cells[key] = placed, self._cell(plan, placed, count)
        return self._cells[key][1]

    def _cell(self, plan: CellPlan, placed: Placed, count: int) -> dict[Phase, Part]:
        attack = placed.matched or placed.attack
        budget = stated_budget(attack, count)
        prompt, reference = self.context.pair
        longer, gradients = prompt + budget.prepended, count * budget.backward
        passes = budget.forward + budget.sweeps * self.shape.vocabulary
        search = self.shape.forward(count * passes, longer, reference)
        search += self.shape.gradient(gradients, longer, reference)
        found = 1.0 if budget.forward or plan.reads else 0.0
        found += len(placed.checkpoints)  # the prompts of smaller shares of the budget
        if attack.universal:
            found *= DISTINCT
        # The control that changes another gradient takes it, others draw instead.
        guided = placed.matched is None or placed.attack.shows == "gradient"
        drawn = DRAWN * gradients if guided and not attack.universal else 0.0
        rescored = self._rescored(count, prompt, reference)
        rescored += self._rescored(found * count, longer, reference)
        parts: dict[Phase, Part] = {
            "load": self._loading(len(plan.borrows), None),
            "attack": self._part(
                search,
                precision=self._precision,
                needed=self._search_bytes,
                gradients=drawn,
                ranked=drawn * longer * self.shape.vocabulary,
            ),
            "rescore": self._part(rescored, needed=self._search_bytes),
        }
        if not plan.borrows:
            del parts["load"]
        if "examined" in plan.identity and budget.backward:
            parts["metrics"] = self._part(
                self._probes(longer, reference), needed=self._search_bytes
            )
        return parts

    def _rescored(self, passes: float, prompt: float, reference: float) -> Cost:
        examples = self.experiment.suite.examples
        cost = self.shape.forward(passes, prompt, reference)
        if examples is None or examples.rouge_tokens is None:
            return cost
        return cost + self.shape.forward(passes, prompt, examples.rouge_tokens)

    def _count(self, plan: CellPlan) -> int:
        """Return how many examples a cell attacks."""
        suite = self.experiment.suite
        assert suite.examples is not None  # a suite with attacks has examples
        most = suite.arms[plan.variant.arm].examples
        counts = (suite.examples.test.count, most, suite.limit)
        return min(n for n in counts if n is not None)

    # --- what both need -------------------------------------------------------------

    @cached_property
    def texts(self) -> Texts:
        """The corpora in the model's tokens."""
        corpora = Corpora(self.experiment.suite.corpora, self.store)
        return Texts(self.experiment.suite, corpora, self.shape, self.assumptions)

    @cached_property
    def context(self) -> CostContext:
        """What plugins may use."""
        examples = self.experiment.suite.examples
        pair = (0.0, 0.0)
        if examples is not None:
            lengths = examples.prompt_tokens, examples.reference_tokens
            pair = self.texts.pair(examples.test.corpus, *lengths)
        return CostContext(
            shape=self.shape,
            corpus=self.texts.size,
            pair=pair,
            limit=self.experiment.suite.limit,
            assumptions=self.assumptions,
        )

    @property
    def _precision(self) -> Precision:
        dtype = self.experiment.models[self.label].dtype
        return "bfloat16" if dtype == "bfloat16" else "float32"

    @property
    def _weights_bytes(self) -> float:
        return float(_FLOAT * self.shape.parameters)

    @property
    def _search_bytes(self) -> float:
        """The float32 model, its copy in another precision, and a pass's tensors."""
        suite = self.experiment.suite
        copy = 2 * self.shape.parameters if self._precision == "bfloat16" else 0
        rows = suite.batch_size or _SCORED_AT_ONCE
        read = rows * self.shape.tokens_read(*self.context.pair)
        logits = rows * self.context.pair[1] * self.shape.vocabulary
        return (
            self._weights_bytes + copy + 12.0 * read * self.shape.width + 8.0 * logits
        )

    def _part(
        self,
        cost: Cost,
        *,
        weights: float = 0.0,
        times: float = 1.0,
        precision: Precision = "float32",
        needed: float | None = None,
        values: float | None = None,
        layers: float | None = None,
        **more: float,
    ) -> Part:
        sequences = float(cost.sequences_forward + cost.sequences_backward)
        work = Work(
            flops=cost.flops,
            values=values_of(self.shape, cost) if values is None else values,
            sequences=sequences,
            layers=sequences * depth(self.shape) if layers is None else layers,
            weights=weights,
            times=times,
            seconds=cost.seconds,
            precision=precision,
            **more,
        )
        return Part(cost, work, self._weights_bytes if needed is None else needed)


@dataclass(frozen=True)
class _Block:
    """What is trained on at a time."""

    tokens: float
    """That count, on average."""
    padded: tuple[float, float]
    """Prompt and reference as they are read, padding included."""
    rows: int
    """Blocks in a pass, on a CPU where a suite does not say."""


def _rows(section: RecoverySection, block_tokens: float) -> int:
    """Return the blocks of a pass: as many as divide those of a step."""
    own = _own_blocks(section, block_tokens)
    return divisor(own, section.micro_batch or _ROWS_ON_A_CPU)


def _most_rows(section: RecoverySection, block_tokens: float) -> int:
    """Return the blocks that a pass has at most, of those of a step."""
    own = _own_blocks(section, block_tokens)
    if section.micro_batch is not None:
        return own
    return max(1, min(own, int(MOST_TOKENS // block_tokens)))


def _own_blocks(section: RecoverySection, block_tokens: float) -> int:
    """Return the blocks of a step that one device has."""
    return -(-section.blocks_per_step(block_tokens) // section.devices)


def training_bytes(
    shape: ModelShape, section: RecoverySection, *, copies: float
) -> tuple[float, float]:
    """Return the device memory that a training step needs: always, and for a block.

    Weights and gradients are float32 and so, by default, are both moments of AdamW.
    With `sharding` they are spread over all devices. Logits are made in parts;
    `copies` are further numbers for each feed-forward weight. What a layer keeps for
    the gradient are `KEPT_BYTES` for each value, or with checkpointing what it reads.
    """
    moment = 2 if section.optimizer_state == "bfloat16" else _FLOAT
    state = 2.0 * (_FLOAT + moment) * shape.parameters
    state += copies * _FLOAT * shape.feed_forward
    kept = KEPT_BYTES * shape.layers
    if section.precision == "bf16":  # autocast keeps copies of the matrices
        state += 2.0 * shape.parameters
    else:
        kept *= 2
    if section.checkpointing:
        kept = _FLOAT * shape.layers + 2 * KEPT_BYTES
    tokens = section.context * (2 if shape.encoder_decoder else 1)
    if section.sharding == "full":
        state /= section.devices
    logits = min(LOGITS_AT_ONCE, section.batch_tokens * shape.vocabulary)
    return state + 12.0 * logits, float(kept) * tokens * shape.width


KEPT_BYTES = 40
"""Bytes that a layer keeps of a value that goes through it, in half precision, as
`harness.models.gradients` measured it."""
MOST_TOKENS = 2**15
"""Tokens in a pass of training on a GPU, where a suite does not say."""
LOGITS_AT_ONCE = 2**26
"""Logits that a step of training makes at once."""
