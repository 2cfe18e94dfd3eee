"""Evaluation as papers do it: per product, then the unweighted mean over products."""
