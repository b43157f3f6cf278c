"""The sentences of the report, each computed from the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

CLEARLY = 0.1  # the smallest difference between ARIs that is called clear
# Descriptions of an ARI of at least the given number. In three classes drawn 20:1:1, about 2 % of
# the images are in a wrong cluster at an ARI of 0.9, and about 6 % at 0.7.
VERDICTS = (
    (0.9, "finds the classes"),
    (0.7, "finds most of each class"),
    (0.4, "finds the classes in part"),
    (-1.0, "does not find the classes"),
)
Scores = dict[str, Any]


def all_readings(results: Scores) -> dict[str, Any]:
    """All sentences, by their names in the page; ``results`` are the contents of metrics.json."""
    clustering = results["clustering"]
    return {
        "finetune_reading": finetune_reading(results["finetune"]),
        "draw_readings": {draw: draw_reading(draw, rows) for draw, rows in clustering.items()},
        "collapse_readings": {draw: collapse_reading(rows) for draw, rows in clustering.items()},
        "sizes_reading": sizes_reading(clustering),
        "path_reading": path_reading(results["path"], clustering),
        "others_reading": others_reading(results["other_classes"]),
        "tsne_reading": tsne_reading(clustering["20:1:1"]),
        "anomaly_reading": anomaly_reading(results["anomaly"]),
        "pipeline_reading": pipeline_reading(results["pipeline"]),
        "deep_reading": deep_reading(results["deep"]),
    }


def finetune_reading(scores: Scores) -> str:
    plain, augmented = scores["accuracy"], scores["accuracy_augmented"]
    n = scores["n_validation"]
    difference = round((augmented - plain) * n)
    if difference == 0:
        return (
            "Equally many validation images are classified correctly with and without augmentation."
        )
    way = "more" if difference > 0 else "fewer"
    text = f"With augmentation, {abs(difference)} {way} of {n} validation images are classified"
    text += " correctly"
    # Two standard errors of a difference between two shares on the same number of images.
    p = (plain + augmented) / 2
    if abs(augmented - plain) <= 2 * np.sqrt(2 * max(p * (1 - p), 1 / n) / n):
        text += ", a difference that may be due to chance"
    return text + "."


def draw_reading(draw: str, rows: dict[str, Scores]) -> str:
    ekm, kmeans = rows["ekm"], rows["kmeans"]
    gain = ekm["ari"] - kmeans["ari"]
    if gain > CLEARLY:
        order = "clearly better than"
    elif gain < -CLEARLY:
        order = "clearly worse than"
    else:
        order = "about equal to"
    multiple = ekm["alpha"] / rows["dvariance"]["alpha"]
    text = f"In the draw {draw}, EKMeans(3) {verdict(ekm)}. This is {order} hard k-means, which "
    text += f"{verdict(kmeans)}. EKMeans(3) chose {multiple:.2g} times the paper's alpha. With the "
    text += f"paper's alpha, EKM {verdict(rows['dvariance'])}."
    return text


def collapse_reading(rows: dict[str, Scores]) -> str:
    """What happens to the centroids at a small and a large alpha, and with the naive formula."""
    low = rows["ekm_0.1x"]["centroids"]["to_each_other"]
    if max(low) < 0.01:
        text = "At 0.1 x the paper's alpha all centroids coincide, since the memberships are too"
        text += " soft to separate the data."
    else:
        text = "At 0.1 x the paper's alpha the centroids do not all coincide; the largest distance"
        text += f" between two of them is {max(low):.2f}."
    high = rows["ekm_10x"]
    if abs(high["ari"] - rows["kmeans"]["ari"]) < 0.05:
        text += " At 10 x the paper's alpha EKM gives about the same result as hard k-means, as its"
        text += f" formula predicts (ARI {high['ari']:.2f})."
    else:
        text += f" At 10 x the paper's alpha EKM has an ARI of {high['ari']:.2f}."
    for multiple in ("10", "100"):
        stable, naive = rows[f"stable_{multiple}x"], rows[f"naive_{multiple}x"]
        text += f" At {multiple} x, started from the first row's centroids, the formula with"
        text += f" shifted exponents has an ARI of {stable['ari']:.2f}; the naive formula"
        at_origin = sum(value < 0.01 for value in naive["centroids"]["to_origin"])
        if at_origin == 3:
            text += " underflows and moves every centroid to the origin"
        elif at_origin:
            text += f" underflows and moves {at_origin} of 3 centroids to the origin"
        elif not naive["converged"]:
            text += " does not converge"
        else:
            text += " converges too"
        text += f" (ARI {naive['ari']:.2f})."
    return text


def sizes_reading(clustering: dict[str, Any]) -> str:
    texts = []
    for draw, rows in clustering.items():
        true, kmeans = rows["ekm"]["true_sizes"], rows["kmeans"]["sizes"]
        ekm = rows["ekm"]["sizes"]
        text = f"In the draw {draw}, the largest class has {max(true)} images. The largest cluster"
        texts.append(text + f" has {max(ekm)} with EKM and {max(kmeans)} with hard k-means.")
    return " ".join(texts)


def path_reading(paths: dict[str, list[Scores]], clustering: dict[str, Any]) -> str:
    texts = []
    for draw, rows in paths.items():
        best = max(row["ari"] for row in rows)
        near = [row["multiple"] for row in rows if row["ari"] > best - 0.05]
        default = clustering[draw]["ekm"]["ari"]
        paper = clustering[draw]["dvariance"]["ari"]
        text = f"In the draw {draw}, the best ARI of the path is {best:.2f}. The ARI is within "
        text += f"0.05 of the best at {len(near)} of {len(rows)} multiples, from "
        text += f"{min(near):.2g} to {max(near):.2g}"
        near_best = [ari > best - 0.05 for ari in (default, paper)]
        text += {
            (True, True): ", with the default alpha, and with the paper's alpha.",
            (True, False): ", and with the default alpha, but not with the paper's alpha.",
            (False, True): ", and with the paper's alpha, but not with the default alpha.",
            (False, False): ", but neither with the default alpha nor with the paper's alpha.",
        }[near_best[0], near_best[1]]
        texts.append(text)
    return " ".join(texts)


def others_reading(rows: list[Scores]) -> str:
    if not rows:
        return ""
    better = sum(row["20:1:1"]["ekm"] > row["20:1:1"]["kmeans"] + CLEARLY for row in rows)
    worse = sum(row["20:1:1"]["ekm"] < row["20:1:1"]["kmeans"] - CLEARLY for row in rows)
    text = "The result depends on the classes: in the draw 20:1:1, EKMeans(3) is clearly better "
    text += f"than hard k-means on {better} of these {len(rows)} triples, clearly worse on {worse},"
    text += f" and about equal on {len(rows) - better - worse}."
    means = {k: float(np.mean([row["20:1:1"][k] for row in rows])) for k in rows[0]["20:1:1"]}
    text += f" The mean ARI of EKMeans(3) in this draw is {means['ekm']:.2f}; with the paper's "
    text += f"alpha it is {means['dvariance']:.2f}, and that of hard k-means is "
    return text + f"{means['kmeans']:.2f}."


def tsne_reading(rows: dict[str, Scores]) -> str:
    apart = rows["ekm_0.1x"]["centroids"]["to_each_other"]
    start = "At 0.1 x the paper's alpha the centroids " + (
        "coincide" if max(apart) < 0.01 else f"are up to {max(apart):.2f} apart"
    )
    values = [rows[key]["ari"] for key in ("ekm_0.1x", "ekm", "ekm_10x")]
    which = [
        "at 0.1 x the paper's alpha",
        "with the default alpha",
        "at 10 x the paper's alpha",
    ][int(np.argmax(values))]
    return f"{start}. The labels agree best with the true ones {which} (ARI {max(values):.2f})."


def anomaly_reading(scores: Scores) -> str:
    ratio = scores["anomaly_loss"] / scores["normal_loss"]
    text = f"The mean loss of anomalous images is {ratio:.1f} times that of normal images, and the "
    text += f"area under the ROC curve of the loss is {scores['auc']:.3f}."
    best = max(scores["detectors"], key=lambda name: scores["detectors"][name]["auc"])
    chosen = scores["detectors"]["reconstruction"]
    text += " The threshold was computed from half of the held-out images, so that"
    text += f" {100 * scores['contamination']:.0f} % of normal images should lie above it. With"
    text += f" it, the reconstruction finds {100 * chosen['found']:.0f} % of the anomalies and"
    text += f" calls {100 * chosen['false_alarms']:.1f} % of the other half abnormal."
    if best != "reconstruction" and scores["detectors"][best]["auc"] > chosen["auc"] + 0.005:
        return text + f" The score {best!r} has a larger area under the curve here."
    return text + " No other score has a clearly larger area under the curve here."


def pipeline_reading(facts: Scores) -> str:
    text = f"pipeline.ts ({facts['megabytes']:.1f} MB) holds encoder, decoder and clusters. Run by"
    text += " PyTorch without ekmfast, it gives "
    if facts["equal_labels"] == 1:
        text += f"all {facts['n_images']} images"
    else:
        text += f"{100 * facts['equal_labels']:.1f} % of {facts['n_images']} images"
    return text + " the same labels as EKMeans gave their codes."


def deep_reading(rows: dict[str, Scores]) -> str:
    ekm, hard = rows["DeepEKM"], rows["deep hard k-means"]
    gain = ekm["ari"] - hard["ari"]
    pair = f"(ARI {ekm['ari']:.2f} against {hard['ari']:.2f})"
    if abs(gain) <= CLEARLY:
        text = f"DeepEKM and deep hard k-means give about equally good clusters here {pair}"
    elif gain > 0:
        text = f"DeepEKM gives better clusters here than deep hard k-means {pair}"
    else:
        text = f"DeepEKM gives worse clusters here than deep hard k-means {pair}"
    best = next(words for least, words in VERDICTS if max(ekm["ari"], hard["ari"]) >= least)
    return f"{text}; the better of the two {best}."


def verdict(scores: Scores) -> str:
    """Describe in words how well the clusters agree with the classes."""
    words = next(text for least, text in VERDICTS if scores["ari"] >= least)
    return f"{words} (ARI {scores['ari']:.2f}, accuracy {scores['accuracy']:.2f})"
