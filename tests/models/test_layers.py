import keras
import numpy as np
import pytest
import tensorflow as tf

from models import Preprocessing, layers


def apply_to(x, layer, *args, **kwargs):
    """`layer(input, *args)` as a model, applied to the array x."""
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, layer(inputs, *args, **kwargs))
    return model, model(x).numpy()


@pytest.mark.parametrize("channel_order", ["RGB", "BGR"])
def test_normalise_image_against_float64(channel_order):
    spec = Preprocessing((0.1, 0.4, 0.7), (0.2, 0.3, 0.5), channel_order=channel_order)
    image = np.random.default_rng(0).random((2, 5, 4, 3))
    expected = (image - [0.1, 0.4, 0.7]) / [0.2, 0.3, 0.5]
    if channel_order == "BGR":
        expected = np.stack([expected[..., 2], expected[..., 1], expected[..., 0]], axis=-1)
    _, output = apply_to(image.astype(np.float32), layers.normalise_image, spec)
    np.testing.assert_allclose(output, expected, atol=1e-6)


def test_normalise_image_stays_float32_under_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        image = np.full((1, 1, 1, 3), 254 / 255, np.float32)  # bfloat16 knows 255/256 and 1, nothing between
        _, output = apply_to(image, layers.normalise_image, Preprocessing((0, 0, 0), (1, 1, 1)))
    finally:
        keras.config.set_dtype_policy(before)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, 254 / 255, rtol=1e-6)


def test_sobel_by_hand():
    # Column differences of the grey picture are -2 -2 2, -5 -2 5, -8 -2 8, summed down with weights 1 2 1; row
    # differences -4 -5 -6, -6 -6 -6, 4 5 6, summed across. Outside the picture is 0.
    grey = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float32)
    image = np.stack([grey + 1, grey - 3, grey + 2], axis=-1)[np.newaxis]
    model, output = apply_to(image, layers.Sobel())
    np.testing.assert_allclose(output[0, :, :, 0], [[-9, -6, 9], [-20, -8, 20], [-21, -6, 21]], atol=1e-5)
    np.testing.assert_allclose(output[0, :, :, 1], [[-13, -20, -17], [-18, -24, -18], [13, 20, 17]], atol=1e-5)
    assert model.weights == [] and output.shape == (1, 3, 3, 2)


def test_the_input_stays_float32_under_mixed_precision():
    # Two grey levels that bfloat16 does not tell apart: an edge of their difference, 2 + 1 + 1 times over.
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        image = np.full((1, 3, 3, 3), 254 / 255, np.float32)
        image[:, :, 2] = 253.5 / 255
        inputs, x = layers.image_input(Preprocessing((0, 0, 0), (1, 1, 1)), sobel=True, least_side=3)
        output = keras.Model(inputs, x)(image)
    finally:
        keras.config.set_dtype_policy(before)
    assert output.dtype == tf.float32
    assert float(output[0, 1, 1, 0]) == pytest.approx(4 * 0.5 / 255, rel=1e-3)


def test_least_side_passes_pictures_on_or_fails_in_graphs_as_well():
    layer = layers.LeastSide(4)
    traced = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 3))])
    image = np.random.default_rng(0).random((2, 4, 5, 3)).astype(np.float32)
    for call in (layer, traced):
        np.testing.assert_array_equal(call(image), image)
        for small in (image[:, :3], image[:, :, :3]):
            with pytest.raises(tf.errors.InvalidArgumentError, match="at least 4 px"):
                call(small)


def test_valid_convolution_equals_float64_whether_or_not_the_kernel_covers_the_map():
    rng = np.random.default_rng(8)
    x = rng.normal(0, 1, (3, 4, 5, 2))
    layer = layers.ValidConvolution(6, 4, use_bias=True)
    layer.build(x.shape)
    layer.bias.assign(rng.normal(0, 1, 6))
    kernel, bias = (weight.astype(np.float64) for weight in layer.get_weights())
    both = np.stack([np.einsum("bijc,ijcd->bd", x[:, :, i : i + 4], kernel) for i in (0, 1)], axis=1) + bias
    images = x.astype(np.float32)
    np.testing.assert_allclose(layer(images)[:, 0], both, atol=1e-5)
    np.testing.assert_allclose(layer(images[:, :, :4])[:, 0, 0], both[:, 0], atol=1e-5)
    unknown = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 2))])
    np.testing.assert_allclose(unknown(images[:, :, :4])[:, 0, 0], both[:, 0], atol=1e-5)


@pytest.mark.parametrize(("side", "operations"), [(4, {"MatMul"}), (5, {"Conv2D"}), (None, {"Conv2D"})])
def test_valid_convolution_is_a_matrix_product_where_it_can_be(side, operations):
    layer = layers.ValidConvolution(6, 4)
    layer.build((None, 4, 4, 2))
    graph = tf.function(layer).get_concrete_function(tf.TensorSpec((None, side, side, 2))).graph
    assert {op.type for op in graph.get_operations()} & {"MatMul", "Conv2D"} == operations


@pytest.mark.parametrize(
    ("size", "stride", "side", "expected"), [(3, 2, 7, 3), (3, 2, 8, 3), (2, 2, 7, 3), (4, 3, 9, 2)]
)
def test_valid_padding_drops_what_no_window_reaches(size, stride, side, expected):
    x = np.arange(side * side, dtype=np.float32).reshape(1, side, side, 1)
    _, pooled = apply_to(x, layers.max_pool, "pool", size, stride, padding="valid")
    model, _ = apply_to(x, layers.convolution, 1, size, "conv", stride=stride, padding="valid")
    model.get_layer("conv").kernel.assign(tf.ones((size, size, 1, 1)))
    assert pooled.shape == model(x).shape == (1, expected, expected, 1)
    last = x[0, (expected - 1) * stride :, (expected - 1) * stride :, 0][:size, :size]
    assert pooled[0, -1, -1, 0] == last.max()
    assert float(model(x)[0, -1, -1, 0]) == last.sum()


COUNTS_AT_STRIDE_2 = {4: [[4, 6], [6, 9]], 5: [[4, 6, 4], [6, 9, 6], [4, 6, 4]]}


@pytest.mark.parametrize(("side", "expected"), COUNTS_AT_STRIDE_2.items())
def test_strided_convolution_pads_every_side(side, expected):
    # Ones under a 3x3 of ones at stride 2 count the taps inside the picture; windows start at -1 and 1 (and
    # 3), so the first loses a row and a column. SAME would start at 0 in an even picture and give [[9, 6],
    # [6, 4]].
    model, _ = apply_to(np.ones((1, side, side, 1), np.float32), layers.convolution, 1, 3, "conv", stride=2)
    model.get_layer("conv").kernel.assign(tf.ones((3, 3, 1, 1)))
    np.testing.assert_array_equal(model(np.ones((1, side, side, 1), np.float32))[0, :, :, 0], expected)


@pytest.mark.parametrize(
    ("kind", "variance"),
    [("fan_in", 1 / (9 * 32)), ("he_fan_in", 2 / (9 * 32)), ("he_fan_out", 2 / (9 * 64))],
)
def test_initial_kernels_have_the_stated_variance_and_differ_between_layers(kind, variance):
    x = np.zeros((1, 4, 4, 32), np.float32)
    models = [apply_to(x, layers.convolution, 64, 3, "conv", initializer=kind)[0] for _ in range(2)]
    one, two = (model.get_layer("conv").kernel.numpy() for model in models)
    assert one.var() == pytest.approx(variance, rel=0.05)  # 18,432 numbers: a deviation of about 1%
    assert one.mean() == pytest.approx(0, abs=5 * np.sqrt(variance / one.size))
    assert not np.array_equal(one, two)
    if kind != "he_fan_out":  # cut at two deviations of a normal that has a deviation of 0.8796 after the cut
        assert np.abs(one).max() <= 2 * np.sqrt(variance) / 0.8796 + 1e-6


def batch_norm_pair(shape, **kwargs):
    """The fused and Keras' own layer with the same non-trivial weights."""
    rng = np.random.default_rng(1)
    weights = [rng.uniform(0.5, 1.5, shape[-1]).astype(np.float32) for _ in range(4)]
    pair = [
        cls(momentum=0.9, epsilon=1e-5, name="bn", **kwargs)
        for cls in (layers.FusedBatchNormalization, keras.layers.BatchNormalization)
    ]
    for layer in pair:
        layer.build(shape)
        layer.set_weights(weights)
    return pair


def train_once(layer, x, upstream):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = layer(x, training=True)
    gradients = tape.gradient(output, [x, *layer.trainable_variables], output_gradients=tf.constant(upstream))
    return [output, *gradients, layer.moving_mean, layer.moving_variance]


@pytest.mark.parametrize("shape", [(4, 5, 3, 6), (2, 1, 1, 3), (1, 1, 1, 2), (7, 5)])
def test_fused_batch_norm_equals_keras(shape):
    # (2, 1, 1, 3) has two values a channel: confusing the biased with the unbiased variance would double it.
    rng = np.random.default_rng(2)
    x, upstream = rng.normal(2, 3, shape).astype(np.float32), rng.normal(0, 1, shape).astype(np.float32)
    fused, plain = batch_norm_pair(shape)
    for ours, theirs in zip(train_once(fused, x, upstream), train_once(plain, x, upstream), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)


def test_fused_batch_norm_against_float64():
    x = np.random.default_rng(3).normal(2, 3, (4, 5, 3, 6))
    fused, _ = batch_norm_pair(x.shape)
    gamma, beta, moving_mean, moving_variance = (weight.astype(np.float64) for weight in fused.get_weights())
    output = fused(x.astype(np.float32), training=True)
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    np.testing.assert_allclose(output, (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta, atol=1e-5)
    np.testing.assert_allclose(fused.moving_mean, 0.9 * moving_mean + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(fused.moving_variance, 0.9 * moving_variance + 0.1 * variance, rtol=1e-5)


def test_fused_batch_norm_uses_the_kernel():
    # Without this, equality with Keras could mean that the kernel is never reached.
    fused, plain = batch_norm_pair((2, 3, 3, 4))
    for layer, count in ((fused, 1), (plain, 0)):
        graph = tf.function(lambda x, layer=layer: layer(x, training=True)).get_concrete_function(
            tf.zeros((2, 3, 3, 4))
        )
        assert sum(op.type == "FusedBatchNormV3" for op in graph.graph.get_operations()) == count


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_fused_batch_norm_in_other_precisions(policy):
    fused, plain = batch_norm_pair((4, 5, 3, 6), dtype=policy)
    x = np.random.default_rng(4).normal(2, 3, (4, 5, 3, 6))
    ours, theirs = fused(x, training=True), plain(x, training=True)
    assert ours.dtype == theirs.dtype
    # Half precision rounds the output (|y| < 8) to steps of 1/32 in bfloat16; the statistics stay in float32.
    np.testing.assert_allclose(tf.cast(ours, tf.float64), tf.cast(theirs, tf.float64), atol=1 / 32)
    np.testing.assert_allclose(fused.moving_variance, plain.moving_variance, rtol=1e-5)


def test_frozen_fused_batch_norm_uses_and_keeps_the_moving_statistics():
    fused, _ = batch_norm_pair((4, 5, 3, 6))
    fused.trainable = False
    before = fused.get_weights()
    gamma, beta, mean, variance = before
    x = np.random.default_rng(5).normal(2, 3, (4, 5, 3, 6)).astype(np.float32)
    expected = (x.astype(np.float64) - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    np.testing.assert_allclose(fused(x, training=True), expected, atol=1e-5)
    np.testing.assert_array_equal(fused.get_weights(), before)


def test_own_layers_survive_saving(tmp_path):
    image = keras.Input((None, None, 3))
    x = layers.normalise_image(image, Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), channel_order="BGR"))
    model = keras.Model(image, layers.batch_norm(x, "bn"))
    pictures = np.random.default_rng(6).random((4, 3, 3, 3)).astype(np.float32)
    model(pictures, training=True)  # moves the statistics
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.get_layer("bn"), layers.FusedBatchNormalization)
    np.testing.assert_allclose(loaded(pictures), model(pictures), atol=1e-6)
    np.testing.assert_allclose(loaded(pictures, training=True), model(pictures, training=True), atol=1e-6)
