"""Classical classifiers of scikit-learn, kept as arrays, which a checkpoint can hold without code.

A linear map has `weight` (C, F), `bias` (C,), `mean` and `scale` (F,). A forest has its trees one after another: `roots`, and
for every node `left`, `right` (-1 in a leaf), `feature`, `threshold` and `share` (nodes, C).

Targets are classes (S,), or labels 0 and 1 (S, C).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from datamodules import UserError

Arrays = dict[str, np.ndarray]
TREES = 300
ITERATIONS = 2000
PENALTIES = np.logspace(-3, 3, 7)
NEVER = -30.0  # score of a class that no training sample has


def fit_majority(features: Any, target: np.ndarray, classes: int, seed: int) -> Arrays:
    """The logarithm of each class's share, whatever the features."""
    shares = labels(target, classes).mean(axis=0)
    return linear(np.zeros((classes, features.shape[1])), np.log(np.maximum(shares, np.exp(NEVER))))


def fit_logistic(features: np.ndarray, target: np.ndarray, classes: int, seed: int) -> Arrays:
    """Multinomial logistic regression on scaled features, or one regression for each label."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = scaling(features)
    scaled = (features - mean) / scale
    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, NEVER)
    for column, wanted in enumerate(target.T if target.ndim == 2 else [target]):
        present = np.unique(wanted)
        if len(present) < 2:
            if target.ndim == 2:
                bias[column] = -NEVER if present[0] else NEVER
            else:
                bias[present] = 0
            continue
        model = LogisticRegression(max_iter=ITERATIONS).fit(scaled, wanted)
        if target.ndim == 2:
            weight[column], bias[column] = model.coef_[0], model.intercept_[0]
        elif len(present) == 2:  # one row, for the second class
            weight[present[1]], bias[present] = model.coef_[0], [0, model.intercept_[0]]
        else:
            weight[present], bias[present] = model.coef_, model.intercept_
    return linear(weight, bias, mean, scale)


def fit_ridge(features: Any, target: np.ndarray, classes: int, seed: int) -> Arrays:
    """Ridge regression to labels 0 and 1, for all classes with the penalty that is best when samples are left out in turn."""
    from sklearn.linear_model import Ridge, RidgeCV

    wanted = labels(target, classes)
    if not isinstance(features, np.ndarray):  # sparse, with rows of norm 1
        model = Ridge(alpha=1.0, solver="sparse_cg").fit(features, wanted)
        return linear(model.coef_.reshape(classes, -1), np.broadcast_to(model.intercept_, classes))
    mean, scale = scaling(features)
    model = RidgeCV(PENALTIES * len(features)).fit((features - mean) / scale, wanted)
    return linear(model.coef_.reshape(classes, -1), np.broadcast_to(model.intercept_, classes), mean, scale)


def fit_forest(features: np.ndarray, target: np.ndarray, classes: int, seed: int) -> Arrays:
    """A random forest of 300 trees; its scores are logarithms of the mean share of each class in the leaves."""
    from sklearn.ensemble import RandomForestClassifier

    if target.ndim == 2:
        raise UserError("a random forest needs one label per sample: choose another baseline")
    forest = RandomForestClassifier(TREES, random_state=seed).fit(features.astype(np.float32), target)
    trees: list[Any] = [estimator.tree_ for estimator in forest.estimators_]
    roots = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]
    share = np.zeros((sum(tree.node_count for tree in trees), classes))
    values = np.concatenate([tree.value[:, 0] for tree in trees])
    share[:, forest.classes_] = values / values.sum(axis=1, keepdims=True)

    def children(side: str) -> np.ndarray:
        found = [getattr(tree, f"children_{side}") for tree in trees]
        return np.concatenate([np.where(f < 0, -1, f + root) for f, root in zip(found, roots, strict=True)])

    return {
        "roots": roots,
        "left": children("left"),
        "right": children("right"),
        "feature": np.concatenate([tree.feature for tree in trees]),
        "threshold": np.concatenate([tree.threshold for tree in trees]),
        "share": share,
    }


def scores_of(fitted: Arrays, features: Any) -> np.ndarray:
    """Scores (B, C) of features (B, F)."""
    if "roots" not in fitted:
        if isinstance(features, np.ndarray):
            features = (features - fitted["mean"]) / fitted["scale"]
        return np.asarray(features @ fitted["weight"].T) + fitted["bias"]
    features = features.astype(np.float32)  # as scikit-learn's trees compare them
    node = np.tile(fitted["roots"], (len(features), 1))
    rows = np.arange(len(features))[:, None]
    while (inner := fitted["left"][node] >= 0).any():
        goes_left = features[rows, np.where(inner, fitted["feature"][node], 0)] <= fitted["threshold"][node]
        node = np.where(inner, np.where(goes_left, fitted["left"][node], fitted["right"][node]), node)
    return np.log(np.maximum(fitted["share"][node].mean(axis=1), np.exp(NEVER)))


def linear(weight: np.ndarray, bias: Any, mean: Any = None, scale: Any = None) -> Arrays:
    width = weight.shape[1]
    mean, scale = (np.zeros(width), np.ones(width)) if mean is None else (mean, scale)
    return {"weight": weight, "bias": np.array(bias, dtype=np.float64), "mean": mean, "scale": scale}


def scaling(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the columns; 1 for those that never change."""
    std = features.std(axis=0)
    return features.mean(axis=0), np.where(std > 0, std, 1.0)


def labels(target: np.ndarray, classes: int) -> np.ndarray:
    """Labels (S, C) of 0 and 1."""
    return target.astype(np.float64) if target.ndim == 2 else np.eye(classes)[target]
