"""What follows from N, and from the method: the values that flags left open, and what cannot work. No TensorFlow."""

import math
from dataclasses import replace

from data.errors import FlagError
from la_tf.config import interval
from models.backbone import smallest_input

# The paper's sizes on ImageNet: m = 30,000 is 42.7 images a cluster, k = 4096 is 0.32% of N. Of the digits, N = 1,437,
# smaller clusters do better; of 10,000 pictures of CIFAR-10 and fewer that is open (docs/RESULTS.md). So m grows as
# N^0.7, which goes through the paper's m; a cluster keeps at least 8. The smaller clusters are, the more LA is IR.
IMAGENET_SIZE = 1_281_167
IMAGES_PER_CLUSTER, CLUSTER_GROWTH, LEAST_IN_CLUSTER = 42.7, 0.3, 8
BACKGROUND_SHARE = 0.0032
# A share of a small N is less than what a few clusters hold, and B_i would leave nothing to tell C_i from.
LEAST_BACKGROUND = 128
# Up to here the softmax over all rows costs little beside the network, and noise-contrastive estimation's 4096 noise
# rows are so large a part of N that it estimates what is as cheap to compute.
SOFTMAX_ROWS = 100_000
# Noise-contrastive estimation was published with 4096 noise rows from CIFAR's N = 50,000 on. A smaller bank is full of
# the untrained network's embeddings, all alike, after a few steps: on the digits kNN ended below 0.3 with the first
# batch's Z, and with a running one at 0.93 with 4096 noise rows and 0.96 with CIFAR's share of N.
NOISE_ROWS, PUBLISHED_NCE = 4096, 50_000
# Renewed clusterings go on from the last ones where that saves anything: below, ten from nothing take a third of a
# second, and few and small clusters come out larger or smaller (C_i by a tenth on the digits).
WARM_ITERATIONS, WARM_ROWS = 5, 5_000
# The search for B_i in cells: k-means' means stand for rows only if a cell holds some; with these, recall is above 0.95
# where it was measured (benchmarks/scaling.py).
CELLS_PER_ROOT, LEAST_IN_CELL, VISITED_PER_NEIGHBOUR = 4, 64, 64
DBSCAN_ROWS = 50_000  # scikit-learn's holds every neighbourhood
# DeepCluster: 10,000 classes and 4096 hidden units for ImageNet; with few pictures about 100 classes still do best.
IMAGES_PER_CLASS, LEAST_CLASSES = 128, 100
HIDDEN_PER_CLASS, LEAST_HIDDEN, MOST_HIDDEN = 0.41, 128, 4096
LEAST_ROUND_STEPS = 100  # of training on one assignment: a fresh head has to learn something
# SwAV: 3,000 prototypes for ImageNet, a few hundred for CIFAR: the square root of N goes through both.
IMAGENET_PROTOTYPES = 3000
# A component of a bfloat16 row moves by 1/256 of itself or not at all: under an embedding that stays as it is, a row
# comes to a cosine of 0.995 with t = 0.02, 0.98 with 0.01, 0.93 with 0.005 (one of float16 to 0.999 with 0.005).
LEAST_BFLOAT16_MOMENTUM = 0.02
WHOLE_MAP = ("alexnet", "vgg16")  # their first fully connected layer needs the whole map, so views of one size
QUEUE_PER_PROTOTYPE = 1.25  # a balanced code needs more embeddings than there are prototypes


def clusters_of(size):
    """Returns m, how many clusters `size` images are divided into where nobody says it: 30,000 on ImageNet."""
    images = max(LEAST_IN_CLUSTER, IMAGES_PER_CLUSTER * (size / IMAGENET_SIZE) ** CLUSTER_GROWTH)
    return max(2, round(size / images))


def resolve(config, size):
    """Returns `config` with what follows from N = `size` and from the method filled in, and warnings, a list of lines.

    Raises FlagError for values with which a method cannot work: for LA k >= N, m > N/2 (most clusters one image).
    """
    data, method = config.data, config.method
    if data.batch_size > size:
        raise FlagError(f"--batch_size={data.batch_size}: larger than the data set, which has {size} images")
    image_size = data.image_size or 224  # the network's own
    least = smallest_input(config.model.backbone, config.model.stem_for(image_size))
    if image_size < least:
        raise FlagError(
            f"--image_size={image_size}: {config.model.backbone} needs at least {least} px; raise it, or choose a "
            "--backbone or --stem for small pictures"
        )
    if config.optimizer.learning_rate_warmup >= config.run.epochs:
        raise FlagError(
            f"--learning_rate_warmup={config.optimizer.learning_rate_warmup}: the run ends before the rate is up; "
            "lower it, or raise --epochs"
        )
    method = replace(method, tau=method.tau or (0.1 if method.method == "swav" else 0.07))
    model = replace(config.model, embedding_dim=config.model.embedding_dim or (256 if method.method == "dc" else 128))
    resolver = {"la": _resolve_la, "ir": _resolve_ir, "dc": _resolve_dc, "swav": _resolve_swav}.get(method.method)
    warnings = []
    if resolver:
        method, warnings = resolver(method, config, size)
    if method.bank_dtype == "bfloat16" and method.bank_momentum < LEAST_BFLOAT16_MOMENTUM:
        warnings.append(
            f"--bank_dtype=bfloat16: rounds away most of what --bank_momentum={method.bank_momentum} moves a row by; "
            "take float16"
        )
    run = config.run
    if method.method == "random":
        run = replace(run, max_steps=1)  # nothing is learned
    return replace(config, model=model, method=method, run=run), warnings


def _resolve_ir(method, config, size):
    ir_loss = method.ir_loss or ("softmax" if size <= SOFTMAX_ROWS else "nce")
    warnings = []
    noise_rows = method.noise_rows or max(1, min(NOISE_ROWS, round(NOISE_ROWS * size / PUBLISHED_NCE)))
    if ir_loss == "nce" and method.noise_normalizer == "first_batch" and size < PUBLISHED_NCE:
        warnings.append(
            f"--noise_normalizer=first_batch: with N = {size} images the first batch's Z is soon so far off that "
            "training may fail; take running, or --ir_loss=softmax"
        )
    return replace(method, ir_loss=ir_loss, noise_rows=noise_rows), warnings


def _resolve_la(method, config, size):
    method, warnings = _resolve_ir(method, config, size)
    clusters = method.clusters or clusters_of(size)
    k = method.background_k or min(size - 1, max(LEAST_BACKGROUND, round(size * BACKGROUND_SHARE)))
    if size < 4:
        raise FlagError(f"--dataset={config.data.dataset}: {size} images are too few for Local Aggregation")
    by_clusters = method.close == "clusters" and method.clustering == "kmeans"
    background_clusters = method.background_clusters
    if method.background == "knn" and k >= size:
        raise FlagError(f"--background_k={k}: all N = {size} images would be background; lower it")
    if method.background == "cluster" and background_clusters is None:
        # As many members as B_i has neighbours, if the clusterings' clusters do not overlap.
        background_clusters = max(2, round(method.background_clusterings * size / k))
    members = {"knn": k, "all": size}.get(method.background)  # of B_i
    if method.background == "cluster":
        members = method.background_clusterings * size / background_clusters
    close_k = method.close_k or max(1, min(round(size / clusters), round(members / 2)))
    if method.background == "cluster" and background_clusters > size // 2:
        raise FlagError(f"--background_clusters={background_clusters}: most would hold one of N = {size}; lower it")
    if by_clusters and clusters > size // 2:
        raise FlagError(f"--clusters={clusters}: with N = {size} images most clusters would hold one; lower it")
    if method.close == "knn" and close_k >= members:
        raise FlagError(f"--close_k={close_k}: the close neighbours would be all of the background; lower it")
    if method.clustering == "dbscan" and method.close == "clusters" and size > DBSCAN_ROWS:
        raise FlagError(
            f"--clustering=dbscan: holds all neighbourhoods in memory, too much for N = {size}; take kmeans"
        )
    if by_clusters and clusters >= size / 4:
        warnings.append(f"--clusters={clusters}: fewer than 4 images a cluster (N = {size}); LA will be close to IR")
    if by_clusters and members < size / clusters:
        flag, change = f"--background_k={k}", "raise it"
        if method.background == "cluster":
            flag, change = f"--background_clusters={background_clusters}", "lower it"
        warnings.append(
            f"{flag}: a cluster holds {size / clusters:.0f} images on average, so B_i may lie wholly within C_i and "
            f"the loss vanish; {change}, or raise --clusters"
        )
    if method.clustering == "dbscan":
        method = replace(method, clusterings=1)  # it has no seed: H of them would be one
    if method.warmup_epochs == 0 and config.run.warm_start is None:
        raise FlagError("--warmup_epochs=0: the bank is still random then; take at least 1, or --warm_start=MODEL_DIR")
    if method.warmup_epochs >= config.run.epochs:
        warnings.append(f"--warmup_epochs={method.warmup_epochs}: the run ends before LA begins (--epochs)")
    resolved = {
        "background_k": k, "clusters": clusters, "close_k": close_k, "background_clusters": background_clusters,
        "cluster_every": method.cluster_every or "1epoch", "warm_iterations": method.warm_iterations,
    }  # fmt: skip
    if method.warm_iterations is None:
        resolved["warm_iterations"] = WARM_ITERATIONS if size >= WARM_ROWS else 0
    for name in ("cells", "visited_rows"):
        if getattr(method, name) is not None and method.background_search != "cells":
            raise FlagError(f"--{name}={getattr(method, name)}: goes with --background_search=cells alone")
    if method.background_search == "cells":
        if method.background != "knn":
            raise FlagError("--background_search=cells: goes with --background=knn alone, whose rows it looks for")
        resolved["cells"] = method.cells or cells_for(size)
        resolved["visited_rows"] = method.visited_rows or visited_rows_for(k)
        if resolved["cells"] > size // 2:
            raise FlagError(f"--cells={method.cells}: most would hold one of N = {size} images; lower it")
        if resolved["visited_rows"] < k:
            raise FlagError(f"--visited_rows={method.visited_rows}: hold fewer than the k = {k} of B_i; raise it")
    return replace(method, **resolved), warnings


def cells_for(size):
    """Returns C, into how many cells a bank of `size` rows is parted: as many as cost about as much as they save."""
    return max(1, min(size // LEAST_IN_CELL, round(CELLS_PER_ROOT * math.sqrt(size))))


def visited_rows_for(k):
    """Returns V, how many rows the cells that an image visits hold at least; it does not follow N."""
    return VISITED_PER_NEIGHBOUR * k


def _resolve_dc(method, config, size):
    clusters = method.clusters or max(2, min(LEAST_CLASSES, size // 4), round(size / IMAGES_PER_CLASS))
    if clusters > size // 2:
        raise FlagError(f"--clusters={clusters}: with N = {size} images most clusters would hold one; lower it")
    # Beyond ResNet-34 the paper's head B became trivial (supplement B.2); AlexNet and VGG have two such layers anyway.
    shallow = config.model.backbone in ("resnet10", "resnet18", "resnet34")
    epochs = math.ceil(LEAST_ROUND_STEPS / (size // config.data.batch_size))
    resolved = {
        "clusters": clusters,
        "dc_head": method.dc_head or ("b" if shallow else "a"),
        "head_units": method.head_units or min(MOST_HIDDEN, max(LEAST_HIDDEN, round(HIDDEN_PER_CLASS * clusters))),
        "cluster_every": method.cluster_every or (f"{epochs}epochs" if epochs > 1 else "1epoch"),
    }
    if interval(resolved["cluster_every"])[1] != "epochs":
        raise FlagError(f"--cluster_every={method.cluster_every}: DeepCluster's rounds are whole epochs")
    warnings = []
    if config.optimizer.optimizer == "lars":
        warnings.append("--optimizer=lars: the class layer takes plain steps at the same rate, far too long for it")
    return replace(method, **resolved), warnings


def _resolve_swav(method, config, size):
    batch_size = config.data.batch_size
    prototypes = method.prototypes or max(2, round(IMAGENET_PROTOTYPES * math.sqrt(size / IMAGENET_SIZE)))
    # A batch smaller than the number of prototypes leaves some without any picture.
    rows = 0 if batch_size >= prototypes else batch_size * math.ceil(QUEUE_PER_PROTOTYPE * prototypes / batch_size)
    queue = rows if method.queue is None else method.queue
    small_views = method.small_views
    if config.model.backbone in WHOLE_MAP:
        if small_views:
            raise FlagError(
                f"--small_views={small_views}: {config.model.backbone} takes views of one size; set it to 0"
            )
        small_views = 0
    warnings = []
    if batch_size + queue < prototypes:
        warnings.append(
            f"--prototypes={prototypes}: more than a batch and the queue hold ({batch_size} + {queue}), so some stay "
            "empty; lower it, or raise --queue"
        )
    return replace(method, prototypes=prototypes, queue=queue, small_views=small_views), warnings
