"""The untrained network: what every other method has to beat. Its run is one step that changes nothing."""

from la_tf.knn import embed
from la_tf.method import Method


class RandomInitialization(Method):
    """Fills the memory bank with the embeddings of `center_crops()` and learns nothing."""

    def __init__(self, embedder, size, *, center_crops, name="random_initialization", **kwargs):
        super().__init__(embedder, size, name=name, **kwargs)
        self.center_crops = center_crops

    @staticmethod
    def arguments(config, pictures):
        """Adds where the pictures are to be had."""
        return Method.arguments(config, pictures) | {"center_crops": pictures.center_crops}

    def begin_epoch(self, epoch):
        """Fills the bank, and names the phase."""
        embeddings, indices, _ = embed(self, self.center_crops())
        self.bank.fill(indices, embeddings)
        return {"phase": "random"}

    def train_step(self, batch):
        """Counts a step."""
        self.optimizer.iterations.assign_add(1)
        return {metric.name: metric.result() for metric in self.metrics}
