"""The training of `parteq cryoem train`: attempts, what is recorded of each epoch, and what is left at the end."""

from __future__ import annotations

import logging
import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from parteq.datasets.splits import evenly_spread
from parteq.pipelines.cryoem.encoder_frame import keep_encoder_frame
from parteq.pipelines.cryoem.reliability import keep_reliability, report_reliability
from parteq.pipelines.cryoem.symmetry import report_symmetry

if TYPE_CHECKING:
    import torch

    from parteq.apps.cryoem.diagnosis import Diagnosis
    from parteq.apps.cryoem.estimation import Poses
    from parteq.apps.cryoem.halves import Found
    from parteq.apps.cryoem.inference import PoseInference
    from parteq.apps.cryoem.placement import Placement
    from parteq.apps.cryoem.samples import ParticleSamples
    from parteq.core.training import Augment
    from parteq.datasets.cryoem.particles import Particles
    from parteq.pipelines.cryoem.train import TrainPoses
    from parteq.pipelines.run import Run

    Outcome = tuple[Found, Diagnosis, Placement]

__all__ = ["MEASURED", "PoseTraining"]

log = logging.getLogger(__name__)

IMAGES_SHOWN = 70_000
FEWEST_PASSES, MOST_PASSES = 10, 250
MEASURED = 1000
"""Particles that errors are measured on, at most."""


class PoseTraining:
    """A training as a command asks for it.

    Args:
        command: its options.
        run: the run directory.
        samples: the particles to train on.
        measured: particles whose poses are known, to measure on after each epoch; None for none.
        config: of the model.
        device: where.
        began: when the command began, on the monotonic clock.
    """

    def __init__(
        self,
        command: TrainPoses,
        run: Run,
        samples: ParticleSamples,
        measured: Particles | None,
        config: dict[str, Any],
        device: torch.device,
        began: float,
    ) -> None:
        from dataclasses import replace

        from parteq.apps.cryoem.samples import ParticleSamples

        self.command, self.run, self.config, self.device, self.began = command, run, config, device, began
        self.samples, self.data = samples, samples.in_memory()
        self.measured = None
        if measured is not None:
            self.measured = ParticleSamples(measured, samples.disc, samples.scale)
            self.measured_data = self.measured.in_memory()
        passes = math.ceil(IMAGES_SHOWN / len(samples))
        epochs = command.epochs or min(max(FEWEST_PASSES, passes), MOST_PASSES)
        self.settings = replace(command.settings(), epochs=epochs)
        history = run.history()
        self.before = history[-1]["seconds"] if history else 0.0
        self.cpu_began = time.process_time()
        self.cpu_before = history[-1]["cpu_seconds"] if history else 0.0

    def fit(self) -> tuple[PoseInference, Outcome]:
        """Trains, more than once if what comes out is doubtful and allowed.

        Returns:
            The first attempt that is not doubtful, or of those that are the one with the lowest loss; what `finish`
            makes of it.
        """
        from dataclasses import replace

        import torch

        from parteq.apps.cryoem.inference import create_model
        from parteq.core.chain import degree_penalty
        from parteq.core.distributed import is_main, wait
        from parteq.core.training import fit

        command = self.command
        done = self.run.epochs()[-1] if self.run.epochs() else 0
        first, state = 0, None
        if done:
            checkpoint = self.run.checkpoint("last")
            first, state = int(checkpoint.about()["attempt"]), checkpoint.training_state()
        for attempt in range(first, command.restarts + 1):
            torch.manual_seed(command.seed + attempt)
            model = create_model(**self.config).to(self.device)
            if state is not None:
                model = cast("PoseInference", self.run.checkpoint("last").model()).to(self.device)
            if not self._time_is_over():
                fit(
                    model,
                    lambda network, batch: network(*batch),
                    self.data,
                    replace(self.settings, seed=command.seed + attempt),
                    device=self.device,
                    penalty=partial(degree_penalty, samples=len(self.samples)),
                    augment=self._augment(model),
                    after_epoch=partial(self._after_epoch, model, attempt),
                    state=state,
                    progress=not command.quiet,
                )
            state = None
            if attempt == command.restarts or self._time_is_over():
                break
            outcome = self.finish(model)
            found, diagnosis, _ = outcome
            # What searches found may be right though the encoder is stuck. The symmetry of a map of known poses is
            # the particle's.
            stuck = diagnosis.stuck and not (found.reliability is not None and found.reliability.reliable)
            if not stuck and not (diagnosis.symmetric and command.mode == "abinitio"):
                # An attempt that was not kept may have had the lower loss.
                if is_main():
                    self.run.prefer_last()
                wait()
                return model, outcome
            log.warning("parteq: attempt %d: %s Beginning again.", attempt + 1, diagnosis.sentence())
        if command.restarts:
            model = cast("PoseInference", self.run.checkpoint().model())
        return model, self.finish(model)

    def _augment(self, model: PoseInference) -> Augment | None:
        """What alters the images in training; of poses that are known it makes the map first."""
        from parteq.apps.cryoem.augment import fresh_poses, quarter_turns_and_mirrors
        from parteq.apps.cryoem.estimation import map_of_poses

        name, supervised = self.command.augment, self.command.mode == "supervised"
        if name == "d4":
            return quarter_turns_and_mirrors(self.samples.disc)
        if name == "poses" or (name == "auto" and supervised):
            known = self._known()
            volume = map_of_poses(model, self.data, known, self.device)
            return fresh_poses(model.disc, volume, known.rotations, known.shifts)
        return None

    def _known(self) -> Poses:
        """The poses of the file."""
        import torch

        from parteq.apps.cryoem.estimation import Poses

        particles = self.samples.particles
        shifts = torch.from_numpy(particles.shifts_in_angstroms() / self.samples.pixel_size).float()
        return Poses(torch.from_numpy(particles.rotations()).float(), shifts)

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def _time_is_over(self) -> bool:
        """By the clock of the main process; not before there is an epoch."""
        from parteq.core.distributed import of_main

        return of_main(self._seconds() > self.command.max_seconds and bool(self.run.epochs()))

    def _after_epoch(self, model: PoseInference, attempt: int, record: dict[str, float], state: dict[str, Any]) -> bool:
        """Records the errors where they are known, and keeps a checkpoint; whether the time is over."""
        from parteq.apps.cryoem.pose_metrics import pose_errors
        from parteq.core.distributed import is_main, wait

        record["epoch"] += attempt * self.settings.epochs
        record |= {"attempt": attempt, "seconds": self._seconds()}
        record["cpu_seconds"] = self.cpu_before + time.process_time() - self.cpu_began
        if self.measured is not None:
            poses = self._propose(model, self.measured_data)
            truth = self.measured.particles
            rotations = poses.rotations.double().numpy()
            errors = pose_errors(rotations, truth.rotations(), symmetry=self.command.symmetry)
            record["rotation_error_median_deg"] = float(np.median(errors.rotation_in_degrees))
        if is_main():
            about = {
                "application": "cryoem",
                "model": model.config,
                "classes": [],
                "spatial": [self.config["size"]] * 2,
            }
            score = -record["loss"]
            self.run.save(record, model, about | {"attempt": attempt}, state, score=score)
        wait()
        return self._time_is_over()

    def _propose(self, model: PoseInference, data: Any) -> Poses:
        import torch

        from parteq.apps.cryoem.estimation import propose

        with torch.no_grad():
            return propose(model, model.decoder.volume(), data, self.device)

    def finish(self, model: PoseInference) -> Outcome:
        """Poses refined with the map they make, how far to trust them, what is to be said of encoder and map.

        And where the encoder's own map stands, as seen from that map.
        """
        import torch

        from parteq.apps.cryoem.diagnosis import Diagnosis, self_similarity
        from parteq.apps.cryoem.halves import encoder_placement, search_agreement
        from parteq.apps.cryoem.passes import some_of
        from parteq.apps.cryoem.placement import SAME_PLACE

        model.to(self.device)
        found = self._found(model)
        rows = torch.from_numpy(evenly_spread(len(self.samples), MEASURED))
        part = some_of(self.data, rows)
        with torch.no_grad():
            proposed = self._propose(model, part)
            agreement = search_agreement(model, found.volume, part, proposed, self.device, found.frame)
            diagnosis = Diagnosis(agreement, *self_similarity(found.volume, found.frame))
            if self.command.mode == "supervised":
                return found, diagnosis, SAME_PLACE
            placed = found.with_axes_in_place(model, self.data, self.device)
        if not diagnosis.stuck:
            return placed, diagnosis, encoder_placement(proposed, placed.poses.subset(rows), placed.frame)
        # The searches began with the shifts of the encoder, so that at least its centre is theirs.
        return placed, diagnosis, SAME_PLACE if placed is found else found.frame.placement()

    def _found(self, model: PoseInference) -> Found:
        import torch

        from parteq.apps.cryoem.estimation import map_of_poses, weigh
        from parteq.apps.cryoem.halves import Found, refine_until_reliable
        from parteq.apps.cryoem.symmetry_axes import NO_SYMMETRY, find_axes

        symmetry, poses = self.command.symmetry, self._propose(model, self.data)
        with torch.no_grad():
            if self.command.mode == "abinitio":
                return refine_until_reliable(model, self.data, poses, self.device, self.command.seed, symmetry)
            volume = map_of_poses(model, self.data, self._known(), self.device)
            frame = find_axes(volume.numpy(), symmetry)
            # Known poses need no axes, and turns about wrong ones would count as right.
            confidence = weigh(model, volume, self.data, poses, self.device, frame if frame.found else NO_SYMMETRY)
        return Found(poses, volume, confidence, frame, reliability=None)

    def results(self, model: PoseInference, found: Found, diagnosis: Diagnosis, encoder: Placement) -> dict[str, Any]:
        """Writes map, poses and report, and tells what came out."""
        from parteq.apps.cryoem.pose_metrics import pose_errors
        from parteq.datasets.cryoem.mrc import write_volume
        from parteq.pipelines.cryoem.report import write_training_report

        path, particles, pixel_size = self.run.path, self.samples.particles, self.samples.pixel_size
        # In the units of a potential whose projections the images are.
        in_units = (found.volume * model.disc.box * self.samples.scale).numpy()
        write_volume(path / "volume.mrc", in_units, pixel_size)
        rotations, confidence = found.poses.rotations.double().numpy(), found.confidence.numpy()
        shifts = found.poses.shifts.double().numpy() * pixel_size
        estimated = particles.with_poses(rotations, shifts, parteqConfidence=confidence)
        estimated.write(path / "poses.star")
        if found.reliability is not None:
            keep_reliability(path, found.reliability)
            keep_encoder_frame(path, encoder)
        history = self.run.history()
        # That of the weights with which all goes on.
        record = history[self.run.checkpoint().about()["epoch"] - 1]
        verdict = diagnosis.sentence(refined=found.reliability is not None)
        results: dict[str, Any] = {
            "run": str(path),
            "report": str(self.run.report),
            "n_train": len(particles),
            "epochs": len(history),
            "attempts": int(history[-1]["attempt"]) + 1,
            "loss": record["loss"],
            "encoder_search_agreement": diagnosis.agreement,
            "self_similarity": diagnosis.similarity,
            "stuck": diagnosis.stuck,
            "diagnosis": verdict,
            **report_reliability(found.reliability),
            "mean_confidence": float(confidence.mean()),
            **report_symmetry(found.frame),
            "parameters": sum(parameter.numel() for parameter in model.encoder.parameters()),
        }
        errors = None
        if particles.has_poses and self.command.mode == "abinitio":
            truth = (shifts, particles.shifts_in_angstroms())
            errors = pose_errors(rotations, particles.rotations(), truth, symmetry=self.command.symmetry)
            results |= errors.summary()
        elif record.get("rotation_error_median_deg") is not None:
            results["rotation_error_median_deg"] = record["rotation_error_median_deg"]
        findings = [] if found.reliability is None else [found.reliability.sentence()]
        findings.append(verdict)
        if found.frame.symmetry != "C1":
            findings.append(found.frame.sentence())
        write_training_report(self.run, model, in_units, rotations, confidence, errors, " ".join(findings), particles)
        return results
