"""Faster R-CNN on an exported backbone."""
