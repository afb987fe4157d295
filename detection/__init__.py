"""Faster R-CNN on an exported backbone: not written yet (WORKSPACE.md says what is)."""
