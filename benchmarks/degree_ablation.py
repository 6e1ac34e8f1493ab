"""What makes a degree of equivariance learnable: prices on densities, and other ways to choose them.

    python benchmarks/degree_ablation.py --json ablation.json

Digits of scikit-learn under C4 and C2, networks that start from D4, everything else as in ``degree_recovery.py``:

- ``irreps P``: P nats for breaking an irrep of a layer (the default is 2);
- ``no symmetric steps``: the default price, and no steps in which the densities are held uniform;
- ``cross-entropy alone``: neither price nor such steps;
- ``uniform P``: P nats for a nat of divergence from uniform;
- ``chain``: the divergence of each layer from the one before it, at 100 nats;
- ``alignment``: a price on densities that do not peak at the identity, beside the default;
- ``inheritance``: every layer's density is that of the layer before times its own;
- ``held-out``: densities learn from a fifth of the images that weights do not see, weights from the rest;
- ``dual``: the price of each layer is a multiplier raised while its divergence exceeds a slack, and the slack has a
  quadratic cost (after resilient constrained learning; cf. ACE, NeurIPS 2025).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from degree_recovery import HELD_OUT, SYMMETRIES, read_digits, shrink
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from parteq.apps.histo import task
from parteq.apps.histo.models import create_model
from parteq.core.chain import Chain, degree_penalty
from parteq.core.density import SoftmaxDensity
from parteq.core.measure import measure_degree, nearest_subgroup, partial_layers
from parteq.core.training import Settings, fit
from parteq.datasets.symmetry import apply_symmetry
from parteq.pipelines.benchmarks import Rows, accuracy, benchmark_parser, mean_and_spread, run_benchmark

Penalty = Callable[[nn.Module], Tensor]


@dataclass
class Result:
    """One training."""

    variant: str
    symmetry: str
    seed: int
    accuracy: float
    broken_energy: float
    unexplained_energy: float
    named: bool


def uniform_penalty(model: nn.Module, samples: int, price: float) -> Tensor:
    """Return the price of all layers' divergence from uniform."""
    return Chain.of(model).to_uniform() * (price / samples)


def chain_penalty(model: nn.Module, samples: int) -> Tensor:
    """Return the price of each layer's divergence from the one before it; the first pays for its own."""
    chain = Chain.of(model)
    first = chain.densities[0].divergence_from_uniform()
    return (chain.to_predecessor() + first) * (100.0 / samples)


def aligned_penalty(model: nn.Module, samples: int) -> Tensor:
    """Return the default price and one on misalignment."""
    return degree_penalty(model, samples) + Chain.of(model).alignment() * (10.0 / samples)


class DualPenalty:
    """Multipliers μ ← max(0, μ + step (KL − μ / cost)), one a layer; the slack of a layer is μ / cost."""

    def __init__(self, samples: int, step: float = 0.05, cost: float = 3000.0) -> None:
        self.step, self.cost = step, cost / samples
        self.multipliers: Tensor | None = None

    def __call__(self, model: nn.Module) -> Tensor:
        """Return Σ μ KL, and raise or lower the multipliers."""
        divergences = torch.stack([density.divergence_from_uniform() for density in Chain.of(model).densities])
        if self.multipliers is None:
            self.multipliers = torch.zeros_like(divergences)
        now = divergences.detach()
        self.multipliers = (self.multipliers + self.step * (now - self.multipliers / self.cost)).clamp_min(0)
        return (self.multipliers * divergences).sum()


def held_out_loss(model: nn.Module, batch: tuple[Tensor, ...], images: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of a batch, of which densities feel nothing, and one of held-out images, felt by them alone."""
    parameters = list(model.parameters())
    of_densities = {p for density in Chain.of(model).densities for p in density.parameters()}

    def felt(densities: bool) -> None:
        for parameter in parameters:
            parameter.requires_grad_((parameter in of_densities) == densities)

    felt(densities=False)
    fitting = task.loss(model, batch)
    felt(densities=True)
    chosen = torch.randint(len(images), (32,))
    choosing = cross_entropy(model(images[chosen]), labels[chosen])
    for parameter in parameters:
        parameter.requires_grad_(True)
    return fitting + choosing


def inherit(model: nn.Module) -> None:
    """Let every density inherit from the one of the layer before."""
    before: SoftmaxDensity | None = None
    for layer in partial_layers(model).values():
        old = layer.density
        density = SoftmaxDensity(old.group, old.band, parent=before)
        layer.kernel.density = before = density


def variants(samples: int) -> dict[str, Penalty]:
    """Return the penalties by name."""
    irreps = {f"irreps {price:g}": partial(degree_penalty, samples=samples, price=price) for price in (1, 2, 4, 8)}
    uniform = {f"uniform {price:g}": partial(uniform_penalty, samples=samples, price=price) for price in (30, 100)}
    return {
        **irreps,
        "no symmetric steps": partial(degree_penalty, samples=samples),
        "cross-entropy alone": partial(degree_penalty, samples=samples, price=0.0),
        **uniform,
        "chain": partial(chain_penalty, samples=samples),
        "alignment": partial(aligned_penalty, samples=samples),
        "inheritance": partial(degree_penalty, samples=samples),
        "held-out": partial(degree_penalty, samples=samples),
        "dual": DualPenalty(samples),
    }


def run(variant: str, symmetry: str, seed: int, epochs: int) -> Result:
    """Train one variant."""
    group, truth, _ = SYMMETRIES[symmetry]
    images, labels, count = read_digits("digits")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[: count + HELD_OUT]
    images, labels = shrink(apply_symmetry(images[order], symmetry, seed).images), labels[order]
    torch.manual_seed(seed)
    model: Any = create_model(num_classes=10, in_chans=1, group=group, degree="learned")
    model.set_normalization([float(images[:count].mean())], [float(images[:count].std())])
    kept, loss = count, task.loss
    if variant == "inheritance":
        inherit(model)
    if variant == "held-out":
        kept = count * 4 // 5
        loss = partial(held_out_loss, images=images[kept:count], labels=labels[kept:count])
    free = variant in ("no symmetric steps", "cross-entropy alone")
    settings = Settings(seed=seed, epochs=epochs, symmetric_steps=0.0 if free else Settings.symmetric_steps)
    data = TensorDataset(images[:kept], labels[:kept])
    penalty = variants(kept)[variant]
    fit(model, loss, data, settings, penalty=penalty, progress=False)
    under = [degree.broken_under for degree in measure_degree(model.eval())]
    whole, unexplained = (sum(layer[name] for layer in under) for name in ("D4", truth))
    rate = accuracy(model, images[count:], labels[count:])
    return Result(variant, symmetry, seed, rate, whole, unexplained, nearest_subgroup(under) == truth)


def main() -> None:
    """Run, print the table."""
    parser = benchmark_parser(__doc__, seeds=3, threads=2)
    parser.add_argument("--variants", nargs="+", default=list(variants(1)))
    parser.add_argument("--symmetry", nargs="+", default=["c4", "c2"])
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = Rows(Result, options.json, epochs=options.epochs)
    for symmetry in options.symmetry:
        for variant in options.variants:
            for seed in options.seeds:
                if not results.has(variant=variant, symmetry=symmetry, seed=seed):
                    results.add(run(variant, symmetry, seed, options.epochs))
    print(f"{'variant':20} {'symmetry':8} {'accuracy':>19} {'broken':>7} {'unexplained':>11}  named")
    for symmetry in options.symmetry:
        for variant in options.variants:
            found = [result for result in results if (result.symmetry, result.variant) == (symmetry, variant)]
            rates = [result.accuracy for result in found]
            broken, unexplained = (
                statistics.mean(getattr(result, name) for result in found)
                for name in ("broken_energy", "unexplained_energy")
            )
            named = f"{sum(result.named for result in found)}/{len(found)}"
            print(f"{variant:20} {symmetry:8} {mean_and_spread(rates):>19} {broken:7.3f} {unexplained:11.3f}  {named}")


if __name__ == "__main__":
    run_benchmark(main)
