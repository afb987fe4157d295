"""What a step moves, on a device and between devices, in bytes by name: arithmetic on sizes. No TensorFlow."""

from la_tf.plan_table import ALL_REDUCE

FLOAT, LABEL, INDEX = 4, 4, 8  # bytes of a float32, of an int32, of a picture's number
BINS, ROUNDS = 256, 4  # of the count that finds the k-th largest similarity of all devices (`across_replicas`)
SETS, COUNTS = 2, 4  # log-sums of LA, and what is counted beside them


def bytes_per_step(config, sizes, phase, picture_bytes):
    """Returns what a step of a `phase` moves on a device besides the network's own traffic, in bytes by name.

    picture_bytes: of a picture's views.
    """
    method, share = config.method, sizes.share
    row = sizes.dimension * sizes.bank_bytes
    moved = {"batch upload": share * picture_bytes}
    if phase == "ir":
        if method.ir_loss == "nce":
            moved["noise rows"] = sizes.seen * method.noise_rows * row
        else:
            moved["bank, once"] = sizes.bank
    if phase == "la":
        if sizes.visited_rows:
            moved["rows of the cells visited"] = min(sizes.bank, share * sizes.visited_rows * row)
        else:
            moved["bank, once"] = sizes.bank
        if method.background == "knn":
            # Spread, each device has its part of the B_i of all images.
            moved["rows of B_i"] = share * sizes.background_k * row
            if sizes.clusterings:
                moved["labels of B_i"] = share * sizes.background_k * sizes.clusterings * LABEL
        elif sizes.labels:
            moved["labels of all rows"] = sizes.labels
        if method.background != "knn" and method.close == "knn":
            moved["bank, for C_i"] = sizes.bank
            moved["rows of C_i"] = share * method.close_k * row
    if phase != "random":
        # Read and written; where every device keeps its copy of the bank, those of the whole batch.
        moved["bank rows of the batch"] = 2 * (share if sizes.spread else sizes.batch_size) * row
    return moved


def bytes_between(config, sizes, phase, gradient_bytes):
    """Returns what a device sends to others in a step of a `phase`, in bytes by name, by rings; nothing grows with N.

    gradient_bytes: of all gradients of the network. Batch norm over all devices, a few numbers a channel, is left out.
    """
    reduced, gathered = around(sizes.devices)
    told = {ALL_REDUCE: reduced(gradient_bytes)}
    if phase == "random" or sizes.devices == 1:
        return told
    batch, method = sizes.batch_size, config.method
    told["rows for the bank"] = gathered(batch * (sizes.dimension * FLOAT + INDEX + LABEL))
    if not sizes.spread or phase not in ("ir", "la"):
        return told
    if phase == "ir" and method.ir_loss == "nce":
        rows = 1 + method.noise_rows
        told["indices and embeddings"] = gathered(batch * (rows * LABEL + sizes.dimension * FLOAT))
        told["similarities of noise rows"] = reduced(batch * rows * FLOAT) + gathered(batch * rows * FLOAT)
        return told | {"gradient of the embeddings": reduced(batch * sizes.dimension * FLOAT)}
    told["indices and embeddings"] = gathered(batch * (INDEX + sizes.dimension * FLOAT))
    if phase == "la":
        told["labels of the batch"] = reduced(batch * (sizes.clusterings + sizes.background_clusterings) * LABEL)
        if method.background == "knn" or method.close == "knn":
            told |= _of_the_kth(sizes, reduced, gathered)
    counts = COUNTS if phase == "la" else SETS
    told["log-sums and counts"] = gathered(sizes.devices * batch * SETS * FLOAT) + reduced(batch * counts * LABEL)
    told["gradient of the embeddings"] = gathered(batch * SETS * FLOAT) + reduced(batch * sizes.dimension * FLOAT)
    return told


def around(devices):
    """Returns two functions of bytes: what each of R devices in a ring sends to sum up so many, or to gather them."""
    share = (devices - 1) / devices

    def reduced(count):
        return round(2 * share * count)

    def gathered(count):
        return round(share * count)

    return reduced, gathered


def _of_the_kth(sizes, reduced, gathered):
    """Returns what it takes to find the k largest similarities over all devices."""
    from la_tf.neighbors import sampled_largest

    batch, told = sizes.batch_size, {}
    rank = 0 if sizes.visited_rows else sampled_largest(sizes.rows, sizes.background_k, sizes.devices)
    if rank:
        told["bound of B_i"] = gathered(sizes.devices * batch * rank * FLOAT) + reduced(2 * batch * LABEL)
    found = ROUNDS * reduced(batch * BINS * LABEL) + gathered(sizes.devices * batch * LABEL)
    return told | {"k-th similarity": found}
