"""Readers, augmentation and batches: pictures by data set spec -> one batch contract."""
