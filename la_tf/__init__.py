"""Local Aggregation (Zhuang, Zhai, Yamins, ICCV 2019) for TensorFlow 2 / Keras 3: see WORKSPACE.md for the map."""
