"""Learning-rate schedules. `steps`, `cosine` and `constant` are Keras' own; `plateau` is the paper's (section 4.1)."""

import math

import keras

WARMUP_START = 1 / 16  # of the rate, where it rises at first: SwAV's 0.3 of 4.8


def by_step(schedule, learning_rate, total_steps, drop_steps=(), factor=0.1, warmup_steps=0):
    """Returns what a Keras optimizer takes as `learning_rate` for a schedule name.

    `plateau` and `constant` start as a number; `Plateau` lowers it between epochs. `cosine` and `steps` can rise
    linearly in `warmup_steps` of the `total_steps` first.
    """
    if schedule == "cosine" and warmup_steps:
        return keras.optimizers.schedules.CosineDecay(
            learning_rate * WARMUP_START,
            max(total_steps - warmup_steps, 1),
            warmup_target=learning_rate,
            warmup_steps=warmup_steps,
        )
    if schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(learning_rate, max(total_steps, 1))
    if schedule == "steps" and drop_steps:
        values = [learning_rate * factor**drops for drops in range(len(drop_steps) + 1)]
        # Keras still gives the old value at a boundary itself; `drop_steps` are the first steps at the new one.
        boundaries = [step - 1 for step in drop_steps]
        falling = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)
        return Rising(falling, warmup_steps) if warmup_steps else falling
    return Rising(lambda step: learning_rate, warmup_steps) if schedule == "steps" and warmup_steps else learning_rate


class Rising(keras.optimizers.schedules.LearningRateSchedule):
    """A `schedule` whose first `steps` rates rise linearly from `start` of it, as detectors begin."""

    def __init__(self, schedule, steps, start=0.001):
        super().__init__()
        self.schedule, self.steps, self.start = schedule, steps, start

    def __call__(self, step):
        """Returns the rate of a step."""
        done = keras.ops.minimum(keras.ops.cast(step, "float32") / self.steps, 1.0)
        return self.schedule(step) * (self.start + (1 - self.start) * done)

    def get_config(self):
        """Returns what a schedule is made from."""
        return {"schedule": self.schedule, "steps": self.steps, "start": self.start}


class Slowed(keras.optimizers.schedules.LearningRateSchedule):
    """A `factor` of another `schedule`."""

    def __init__(self, schedule, factor):
        super().__init__()
        self.schedule, self.factor = schedule, factor

    def __call__(self, step):
        """Returns the rate of a step."""
        return self.schedule(step) * self.factor

    def get_config(self):
        """Returns what a schedule is made from."""
        return {"schedule": self.schedule, "factor": self.factor}


def slow_down(optimizer, factor, not_yet):
    """Brings the learning rate to `factor` of what it was meant to be; of a variable, `not_yet` is what is left to do.

    A rate that is a variable comes back from checkpoints as it was left, a schedule as it was meant to be. Functions
    that were traced before do not see it.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of one that scales the loss
    schedule = optimizer._learning_rate  # the property gives the number of this step
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        optimizer.learning_rate = float(keras.ops.convert_to_numpy(schedule)) * not_yet
        return
    schedule = schedule.schedule if isinstance(schedule, Slowed) else schedule
    optimizer.learning_rate = Slowed(schedule, factor) if factor != 1 else schedule


class Saturation:
    """Tells when a metric has not improved for `patience` epochs; its memory is a dict that a checkpoint can hold.

    A new phase starts afresh: kNN and loss of the warm start say nothing about those of Local Aggregation.
    """

    def __init__(self, patience, higher_is_better):
        self.patience = patience
        self.sign = 1.0 if higher_is_better else -1.0
        self.memory = {"best": None, "epochs_since": 0, "phase": None, "epoch": -1}

    def reached(self, epoch, value, phase=None):
        """Takes in the metric of an epoch; returns True once `patience` epochs have passed without a better one.

        An epoch counts once, also when a run ended in the middle of it and went on later.
        """
        if epoch <= self.memory["epoch"]:
            return False
        value = self.sign * value
        best = self.memory["best"] if phase == self.memory["phase"] else None
        better = math.isfinite(value) and (best is None or value > best)
        epochs_since = 0 if better else self.memory["epochs_since"] + 1
        best = value if better else best
        self.memory = {"best": best, "epochs_since": epochs_since, "phase": phase, "epoch": epoch}
        return epochs_since >= self.patience

    def rest(self):
        """Starts counting anew: after a drop, the lower rate gets its own `patience` epochs."""
        self.memory["epochs_since"] = 0


class Plateau(keras.callbacks.Callback):
    """Multiplies the learning rate by `factor` when the monitor saturates, `drops` times at most (section 4.1)."""

    def __init__(self, monitor, higher_is_better, patience=10, drops=2, factor=0.1):
        super().__init__()
        self.monitor = monitor
        self.saturation = Saturation(patience, higher_is_better)
        self.drops = drops
        self.factor = factor
        self.dropped = 0

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the monitor and lowers the rate when it is time."""
        if not self.saturation.reached(epoch, logs[self.monitor], logs.get("phase")) or self.dropped == self.drops:
            return
        self.dropped += 1
        self.saturation.rest()
        optimizer = self.model.optimizer
        optimizer.learning_rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate)) * self.factor

    def get_state(self):
        """Returns what a checkpoint has to hold."""
        return {"dropped": self.dropped, **self.saturation.memory}

    def set_state(self, state):
        """Takes back what `get_state` gave; the rate itself comes back with the optimizer."""
        self.dropped = state["dropped"]
        self.saturation.memory = {key: state[key] for key in self.saturation.memory}


class EarlyStopping(keras.callbacks.Callback):
    """Ends the run when the monitor has not improved for `patience` epochs."""

    def __init__(self, monitor, higher_is_better, patience):
        super().__init__()
        self.monitor = monitor
        self.saturation = Saturation(patience, higher_is_better)

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the monitor."""
        if self.saturation.reached(epoch, logs[self.monitor], logs.get("phase")):
            self.model.stop_training = True

    def get_state(self):
        """Returns what a checkpoint has to hold."""
        return dict(self.saturation.memory)

    def set_state(self, state):
        """Takes back what `get_state` gave."""
        self.saturation.memory = dict(state)
