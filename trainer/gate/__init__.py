"""The gate: a challenger proves itself against the champion on one frozen test, or stays outside."""
