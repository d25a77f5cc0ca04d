"""Rows unlike the others: scores, models of the other folds, wrong labels."""
