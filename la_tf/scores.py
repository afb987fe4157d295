"""What votes are worth: top-1, top-5, mean over classes and confidence, counted batch by batch."""

import numpy as np


def decide(votes):
    """Returns the winning classes `[Q]`, ties to the lowest, and their shares of the votes `[Q]` (the confidence).

    A query without any vote has class -1 and confidence 0: what is not a number has no neighbours.
    """
    total = votes.sum(axis=1)
    heard = total > 0
    confidence = np.divide(votes.max(axis=1), total, out=np.zeros(len(votes)), where=heard)
    return np.where(heard, votes.argmax(axis=1), -1), confidence


class Scores:
    """How well votes tell the truth, counted batch by batch; means over nothing are None.

    class_count and class_right `[classes]` are pictures judged and right of each class; `unlabelled` and `unreadable`
    pictures are not judged; `unheard` ones are, as wrong: no row voted on them.
    """

    def __init__(self, classes):
        self.class_count, self.class_right = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
        self.among_five = self.unheard = self.unlabelled = self.unreadable = 0
        self._confidence = np.zeros(2)  # summed over the wrong ones, the right ones

    def add(self, votes, truth):
        """Counts pictures with `votes` `[Q, classes]` whose labels are `truth` `[Q]`, -1 where unknown."""
        known = truth >= 0
        self.unlabelled += int(np.count_nonzero(~known))
        votes, truth = votes[known], truth[known]
        classes = len(self.class_count)
        if truth.max(initial=-1) >= classes:
            raise ValueError(f"a picture has label {truth.max()}, but there are {classes} classes")
        predicted, confidence = decide(votes)
        right = predicted == truth
        own = votes[np.arange(len(votes)), truth][:, None]
        before = (votes > own) | ((votes == own) & (np.arange(classes) < truth[:, None]))
        self.among_five += int(np.count_nonzero((before.sum(axis=1) < 5) & (own[:, 0] > 0)))
        self.unheard += int(np.count_nonzero(predicted < 0))
        self.class_count += np.bincount(truth, minlength=classes)
        self.class_right += np.bincount(truth[right], minlength=classes)
        self._confidence += np.bincount(right, confidence, minlength=2)

    @property
    def judged(self):
        """Number of pictures judged."""
        return int(self.class_count.sum())

    @property
    def top1(self):
        """Share of the judged pictures whose class has the most votes."""
        return _mean(self.class_right.sum(), self.judged)

    @property
    def top5(self):
        """Share whose class is among the five with the most votes, ties to the lowest class; no vote is no place."""
        return _mean(self.among_five, self.judged)

    @property
    def class_accuracy(self):
        """Share right of each class's pictures, `[classes]`; NaN for classes without any."""
        return np.divide(
            self.class_right, self.class_count, out=np.full(len(self.class_count), np.nan), where=self.class_count > 0
        )

    @property
    def class_mean(self):
        """Mean of `class_accuracy` over the classes that have pictures."""
        present = self.class_count > 0
        return _mean(self.class_accuracy[present].sum(), np.count_nonzero(present))

    @property
    def confidence(self):
        """Mean share of the votes that the winner has."""
        return _mean(self._confidence.sum(), self.judged)

    @property
    def confidence_right(self):
        """The same over the pictures told right."""
        return _mean(self._confidence[1], self.class_right.sum())

    @property
    def confidence_wrong(self):
        """The same over the others."""
        return _mean(self._confidence[0], self.judged - self.class_right.sum())

    def results(self, class_names):
        """Returns it all as `{name: number}`, with `per_class` of the classes that have pictures, by their names."""
        shares = ("top1", "top5", "class_mean", "confidence", "confidence_right", "confidence_wrong")
        counts = ("judged", "unheard", "unlabelled", "unreadable")
        return {name: getattr(self, name) for name in (*shares, *counts)} | {
            "per_class": {
                str(class_names[label]): {"top1": float(self.class_accuracy[label]), "images": int(images)}
                for label, images in enumerate(self.class_count)
                if images
            }
        }


def _mean(total, count):
    return float(total / count) if count else None
