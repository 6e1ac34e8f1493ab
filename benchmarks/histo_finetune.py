"""A hundred labelled cells: from scratch, or from what was learned on other cells.

    python benchmarks/histo_finetune.py --json finetune.json

Needs ``histo/chula_rbc.npz`` and ``histo/malaria_cells.npz`` in ``$PARTEQ_DATA`` (or ``../shared/data``). For each seed
a model is trained on the red cells of the first, thirteen classes of shape, and goes on with the malaria cells of the
second (``--reverse``: the other way round): all layers (``full``), the invariant head (``head``) or a logistic
regression on its features (``probe``). ``scratch`` is the same architecture with random weights, trained on the same
images for the same number of steps as ``full`` and ``head``. Test images are of patients (or slides) that no training
image is of, drawn anew for each seed. All else is as `parteq histo train` and `parteq histo finetune` do by default.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from parteq.apps.histo import task
from parteq.apps.histo.finetune import freeze_backbone, layer_rates
from parteq.apps.histo.models import MODELS, Classifier, create_model
from parteq.apps.histo.probe import fit_probe
from parteq.core.chain import degree_penalty
from parteq.core.training import Settings, fit
from parteq.datasets.images import ImageDataset
from parteq.datasets.npz import read_npz
from parteq.datasets.splits import check_no_leakage, grouped_split, stratified_subset
from parteq.pipelines.benchmarks import Rows, benchmark_parser, data_folder, mean_and_spread, run_benchmark

METHODS = ("scratch", "full", "head", "probe")
LAYER_DECAY = 0.75
CPU = torch.device("cpu")
SCORES = ("auc", "balanced_accuracy", "accuracy", "nll")
SETTINGS = ("reverse", "model", "degree", "width", "limit", "epochs", "pretraining_limit", "pretraining_epochs", "test")


@dataclass(frozen=True)
class Row:
    """One training; scores are of the test images."""

    method: str
    seed: int
    images: int
    epochs: int
    parameters: int
    auc: float
    balanced_accuracy: float
    accuracy: float
    nll: float
    seconds: float


def train(
    model: Classifier, training: ImageDataset, settings: Settings, rates: dict[nn.Parameter, float] | None = None
) -> None:
    """Train as the commands do."""
    penalty = partial(degree_penalty, samples=len(training))
    fit(model, task.loss, task.samples(training), settings, penalty=penalty, rates=rates, progress=False)


def new_model(options: argparse.Namespace, training: ImageDataset, seed: int) -> Classifier:
    """Return a model with random weights for these images."""
    torch.manual_seed(seed)
    classes, degree = len(training.classes), options.degree
    model = create_model(options.model, num_classes=classes, group="d4", degree=degree, width=options.width)
    model.set_normalization(*task.normalization(training))
    return model


def learn(
    method: str, options: argparse.Namespace, pretrained: Classifier, training: ImageDataset, seed: int
) -> Classifier:
    """Return a model that has learned from the training images."""
    settings = Settings(epochs=options.epochs, seed=seed)
    if method == "scratch":
        model = new_model(options, training, seed)
        train(model, training, settings)
        return model
    model = copy.deepcopy(pretrained)
    torch.manual_seed(seed)
    model.reset_classifier(len(training.classes))
    if method == "probe":
        fit_probe(model, training, CPU, seed)
    elif method == "full":
        train(model, training, settings, layer_rates(model, LAYER_DECAY))
    else:
        freeze_backbone(model)
        train(model, training, settings)
    return model


def main() -> None:
    """Pre-train, fine-tune, evaluate, print the table."""
    parser = benchmark_parser(__doc__, seeds=5, threads=1)
    parser.add_argument("--reverse", action="store_true", help="from malaria cells to red cells")
    parser.add_argument("--model", choices=MODELS, default="resnet")
    parser.add_argument("--degree", choices=("learned", "full"), default="learned")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--limit", type=int, default=100, help="labelled images to go on with")
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--pretraining-limit", type=int, default=4000, help="images to begin with")
    parser.add_argument("--pretraining-epochs", type=int, default=15)
    parser.add_argument("--test", type=int, default=2000, help="held-out images")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = data_folder() / "histo"
    source, target = (read_npz(folder / name) for name in ("chula_rbc.npz", "malaria_cells.npz"))
    if options.reverse:
        source, target = target, source
    rows = Rows(Row, options.json, **{name: getattr(options, name) for name in SETTINGS})
    for seed in options.seeds:
        wanted = [method for method in options.methods if not rows.has(method=method, seed=seed)]
        if not wanted:
            continue
        train_part, held_out = grouped_split(target.labels, target.groups, 0.3, seed)
        training, test = target.subset(train_part), target.subset(held_out)
        check_no_leakage(training.groups, test.groups)
        training = training.subset(stratified_subset(training.labels, options.limit, seed))
        test = test.subset(stratified_subset(test.labels, min(options.test, len(test)), seed))
        other = source.subset(stratified_subset(source.labels, options.pretraining_limit, seed))
        pretrained = new_model(options, other, seed)
        train(pretrained, other, Settings(epochs=options.pretraining_epochs, seed=seed))
        for method in wanted:
            start = time.perf_counter()
            model = learn(method, options, pretrained, training, seed)
            seconds = time.perf_counter() - start
            scores = task.evaluate(model, test, CPU, seed=seed)
            weights = sum(parameter.numel() for parameter in model.parameters())
            values = {name: float(scores[name] or 0) for name in SCORES}
            rows.add(Row(method, seed, len(training), options.epochs, weights, seconds=seconds, **values))
    print(f"{'method':10} {'weights':>8}" + "".join(f"{name:>20}" for name in SCORES) + f"{'seconds':>10}")
    for method in options.methods:
        mine = [row for row in rows if row.method == method]
        columns = []
        for name in SCORES:
            found = [float(getattr(row, name)) for row in mine]
            columns.append(mean_and_spread(found, ".4f"))
        seconds = statistics.mean(row.seconds for row in mine)
        print(f"{method:10} {mine[0].parameters:8}" + "".join(f"{text:>20}" for text in columns) + f"{seconds:10.1f}")


if __name__ == "__main__":
    run_benchmark(main)
