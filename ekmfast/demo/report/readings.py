"""The sentences of the report, each computed from the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

CLEARLY = 0.1  # a difference between ARIs that is worth telling
# What an ARI of at least so much is called. In three classes drawn 20:1:1 an ARI of 0.9 leaves
# about 2 % of the images in a wrong cluster, one of 0.7 about 6 %.
VERDICTS = (
    (0.9, "finds the classes"),
    (0.7, "finds most of each class"),
    (0.4, "finds the classes in part"),
    (-1.0, "does not find the classes"),
)
Scores = dict[str, Any]


def all_readings(results: Scores) -> dict[str, Any]:
    """Every sentence under the name that the page calls it; ``results`` is metrics.json."""
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
        return "With and without augmentation as many validation images are classified rightly."
    way = "more" if difference > 0 else "fewer"
    text = f"With augmentation {abs(difference)} {way} of {n} validation images are right"
    # Two standard errors of a difference between two shares on the same number of images.
    p = (plain + augmented) / 2
    if abs(augmented - plain) <= 2 * np.sqrt(2 * max(p * (1 - p), 1 / n) / n):
        text += ", no more of a difference than chance makes on so few"
    return text + "."


def draw_reading(draw: str, rows: dict[str, Scores]) -> str:
    ekm, kmeans = rows["ekm"], rows["kmeans"]
    gain = ekm["ari"] - kmeans["ari"]
    if gain > CLEARLY:
        order = "well ahead of"
    elif gain < -CLEARLY:
        order = "well behind"
    else:
        order = "about equal to"
    text = f"Drawn {draw}, EKMeans(3) {verdict(ekm)}, {order} hard k-means, which "
    text += (
        f"{verdict(kmeans)}. It chose {ekm['alpha'] / rows['dvariance']['alpha']:.2g} times the "
    )
    text += f"paper's alpha, with which EKM {verdict(rows['dvariance'])}."
    return text


def collapse_reading(rows: dict[str, Scores]) -> str:
    """Where the centroids went, at the small alpha, the large one and with the naive formula."""
    low = rows["ekm_0.1x"]["centroids"]["to_each_other"]
    if max(low) < 0.01:
        text = "At 0.1 x the paper's alpha all centroids meet in one point: its memberships are"
        text += " too soft to part the data."
    else:
        text = "At 0.1 x the paper's alpha the centroids do not all meet; the two farthest are "
        text += f"{max(low):.2f} apart."
    high = rows["ekm_10x"]
    if abs(high["ari"] - rows["kmeans"]["ari"]) < 0.05:
        text += " At 10 x it EKM does as hard k-means does, as its formula promises"
        text += f" (ARI {high['ari']:.2f})."
    else:
        text += f" At 10 x it EKM reaches an ARI of {high['ari']:.2f}."
    for multiple in ("10", "100"):
        stable, naive = rows[f"stable_{multiple}x"], rows[f"naive_{multiple}x"]
        text += f" Begun from the first row's centroids at {multiple} x, the formula with shifted"
        text += f" exponents has an ARI of {stable['ari']:.2f}; the naive one"
        at_origin = sum(value < 0.01 for value in naive["centroids"]["to_origin"])
        if at_origin == 3:
            text += " underflows and drives every centroid to the origin"
        elif at_origin:
            text += f" underflows and drives {at_origin} of 3 centroids to the origin"
        elif not naive["converged"]:
            text += " wanders without settling"
        else:
            text += " settles too"
        text += f" (ARI {naive['ari']:.2f})."
    return text


def sizes_reading(clustering: dict[str, Any]) -> str:
    texts = []
    for draw, rows in clustering.items():
        true, found = rows["ekm"]["true_sizes"], rows["kmeans"]["sizes"]
        ekm = rows["ekm"]["sizes"]
        text = f"drawn {draw}, the largest class of {max(true)} became a cluster of {max(ekm)}"
        texts.append(text + f" with EKM and of {max(found)} with hard k-means")
    text = "; ".join(texts) + "."
    return text[0].upper() + text[1:]


def path_reading(paths: dict[str, list[Scores]], clustering: dict[str, Any]) -> str:
    texts = []
    for draw, rows in paths.items():
        best = max(row["ari"] for row in rows)
        near = [row["multiple"] for row in rows if row["ari"] > best - 0.05]
        default = clustering[draw]["ekm"]["ari"]
        paper = clustering[draw]["dvariance"]["ari"]
        text = f"drawn {draw} the best ARI is {best:.2f}"
        text += f", within 0.05 of it lie {len(near)} of {len(rows)} multiples, from "
        text += f"{min(near):.2g} to {max(near):.2g}"
        near_best = [ari > best - 0.05 for ari in (default, paper)]
        text += {
            (True, True): "; the default's and the paper's alpha reach that",
            (True, False): "; the default's alpha reaches that, the paper's does not",
            (False, True): "; the paper's alpha reaches that, the default's does not",
            (False, False): "; neither the default's alpha nor the paper's reaches that",
        }[near_best[0], near_best[1]]
        texts.append(text)
    return " ".join(f"Over the path, {text}." for text in texts)


def others_reading(rows: list[Scores]) -> str:
    if not rows:
        return ""
    better = sum(row["20:1:1"]["ekm"] > row["20:1:1"]["kmeans"] + CLEARLY for row in rows)
    worse = sum(row["20:1:1"]["ekm"] < row["20:1:1"]["kmeans"] - CLEARLY for row in rows)
    text = f"The choice of classes matters: drawn 20:1:1, EKMeans(3) is clearly better on {better} "
    text += f"of these {len(rows)} triples, clearly worse on {worse}"
    text += f" and about equal on {len(rows) - better - worse}."
    means = {k: float(np.mean([row["20:1:1"][k] for row in rows])) for k in rows[0]["20:1:1"]}
    text += f" Its mean ARI there is {means['ekm']:.2f}, with the paper's alpha "
    return text + f"{means['dvariance']:.2f}, of hard k-means {means['kmeans']:.2f}."


def tsne_reading(rows: dict[str, Scores]) -> str:
    apart = rows["ekm_0.1x"]["centroids"]["to_each_other"]
    start = "At 0.1 x the paper's alpha the centroids lie " + (
        "in one point" if max(apart) < 0.01 else f"up to {max(apart):.2f} apart"
    )
    values = [rows[key]["ari"] for key in ("ekm_0.1x", "ekm", "ekm_10x")]
    which = [
        "there",
        "with the default's alpha",
        "at 10 x the paper's alpha",
    ][int(np.argmax(values))]
    return f"{start}; the labels come closest to the true ones {which} (ARI {max(values):.2f})."


def anomaly_reading(scores: Scores) -> str:
    ratio = scores["anomaly_loss"] / scores["normal_loss"]
    text = f"An anomalous image loses {ratio:.1f} times as much as a normal one on average, and a "
    text += "threshold on the loss ranks them with an area under the ROC curve of "
    text += f"{scores['auc']:.3f}."
    best = max(scores["detectors"], key=lambda name: scores["detectors"][name]["auc"])
    chosen = scores["detectors"]["reconstruction"]
    text += (
        f" With a threshold that {100 * scores['contamination']:.0f} % of normal images should fall"
    )
    text += " beyond, by half of the held-out ones, the reconstruction finds"
    text += f" {100 * chosen['found']:.0f} % of the anomalies and"
    text += f" calls {100 * chosen['false_alarms']:.1f} % of the other half abnormal."
    if best != "reconstruction" and scores["detectors"][best]["auc"] > chosen["auc"] + 0.005:
        return text + f" The score of {best!r} ranks better here."
    return text + " The other scores rank no better here."


def pipeline_reading(facts: Scores) -> str:
    text = f"pipeline.ts ({facts['megabytes']:.1f} MB) holds encoder, decoder and clusters; read by"
    text += " PyTorch alone it labels "
    if facts["equal_labels"] == 1:
        return text + f"all {facts['n_images']} images as the steps one by one do."
    share = 100 * facts["equal_labels"]
    return text + f"{share:.1f} % of {facts['n_images']} images as the steps one by one do."


def deep_reading(rows: dict[str, Scores]) -> str:
    ekm, hard = rows["DeepEKM"], rows["deep hard k-means"]
    gain = ekm["ari"] - hard["ari"]
    pair = f"(ARI {ekm['ari']:.2f} against {hard['ari']:.2f})"
    if abs(gain) <= CLEARLY:
        text = f"The loss of DeepEKM and that of deep hard k-means do about equally here {pair}"
    elif gain > 0:
        text = f"The loss of DeepEKM does better here than that of deep hard k-means {pair}"
    else:
        text = f"The loss of DeepEKM does worse here than that of deep hard k-means {pair}"
    best = next(words for least, words in VERDICTS if max(ekm["ari"], hard["ari"]) >= least)
    return f"{text}; the better one {best}."


def verdict(scores: Scores) -> str:
    """In words, how near the clusters come to the classes."""
    words = next(text for least, text in VERDICTS if scores["ari"] >= least)
    return f"{words} (ARI {scores['ari']:.2f}, accuracy {scores['accuracy']:.2f})"
