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
# A model that leaves more than this share of the variance of normal images has learned little of
# them.
UNTRAINED = 0.8
Scores = dict[str, Any]


def all_readings(results: Scores) -> dict[str, Any]:
    """All sentences, by their names in the page; ``results`` are the contents of metrics.json."""
    clustering, labelled = results["clustering"], results["labelled"]
    shown = results["shown"]
    readings: dict[str, Any] = {
        "model_reading": model_reading(results["model"]),
        "tuned_readings": {draw: tuned_reading(draw, rows) for draw, rows in clustering.items()},
        "collapse_readings": {draw: collapse_reading(rows) for draw, rows in clustering.items()},
        "pipeline_reading": pipeline_reading(results["pipeline"]),
    }
    if results["anomaly"] is not None:
        readings["anomaly_reading"] = anomaly_reading(results["anomaly"])
        readings["separation_reading"] = separation_reading(results["anomaly"])
    if not labelled:
        return readings | {
            "sizes_reading": unlabelled_reading(shown, clustering[shown], results["deep"])
        }
    return readings | {
        "finetune_reading": finetune_reading(results["finetune"]),
        "confusion_reading": confusion_reading(results["finetune"], results["class_names"]),
        "draw_readings": {draw: draw_reading(draw, rows) for draw, rows in clustering.items()},
        "sizes_reading": sizes_reading(clustering),
        "path_reading": path_reading(results["path"], clustering),
        "others_reading": others_reading(results["other_classes"], shown),
        "tsne_reading": tsne_reading(clustering[shown]),
        "deep_reading": deep_reading(results["deep"]),
    }


def model_reading(model: Scores) -> str:
    first, channels = model["in_channels"], model["channels"]
    up_to = f"{_list(channels[:-1])} and {channels[-1]}"
    size = model["image_size"]
    kind = "grey" if model["in_channels"] == 1 else "colour"
    text = f"The model is a convolutional autoencoder of {kind} images of {size} x {size} pixels: "
    text += f"four convolutions, which make {first} channel{'s' * (first > 1)} into {up_to} and "
    text += "each halve height and width, a linear layer to a code of "
    text += f"{model['latent_dim']:,} features, and a decoder that mirrors them."
    return text + f" Encoder and decoder have {model['n_weights']:,} weights."


def finetune_reading(scores: Scores) -> str:
    plain, augmented = scores["accuracy"], scores["accuracy_augmented"]
    n = scores["n_validation"]
    difference = round((augmented - plain) * n)
    if difference == 0:
        return (
            "Equally many held-out images are classified correctly with and without augmentation."
        )
    way = "more" if difference > 0 else "fewer"
    number = f"{abs(difference)} {way} of {n} held-out images "
    text = f"With augmentation, {number}{'is' if abs(difference) == 1 else 'are'} classified"
    text += " correctly"
    # Two standard errors of a difference between two shares on the same number of images.
    p = (plain + augmented) / 2
    if abs(augmented - plain) <= 2 * np.sqrt(2 * max(p * (1 - p), 1 / n) / n):
        text += ", a difference that may be due to chance"
    return text + "."


def confusion_reading(scores: Scores, names: list[str]) -> str:
    """The pair of classes that the better model confuses most, or the augmented one of equals."""
    equal = scores["accuracy_augmented"] == scores["accuracy"]
    which = "The model with augmentation" if equal else "The better of the two models"
    better = scores["accuracy_augmented"] >= scores["accuracy"]
    table = np.array(scores["confusion_augmented" if better else "confusion"])
    wrong = table - np.diag(np.diag(table))
    if not wrong.any():
        return f"{which} classifies every held-out image correctly."
    true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
    held_out = table.sum(axis=1)
    recall = np.where(held_out > 0, np.diag(table) / np.maximum(held_out, 1), 1)
    worst = int(recall.argmin())
    text = f"{which} most often mistakes {names[true]} for "
    text += f"{names[predicted]} ({wrong.max()} of {table[true].sum()} held-out images of this "
    text += "class)"
    ties = int((wrong == wrong.max()).sum()) - 1
    if ties:
        text += f", and {ties} other pair{'s' * (ties > 1)} of classes as often"
    text += f". Its worst class is {names[worst]}, of which it finds {table[worst, worst]} of "
    return text + f"{held_out[worst]}."


def tuned_reading(draw: str, rows: dict[str, Scores]) -> str:
    """What the alpha is that was tuned to the wanted shares, and what it gives."""
    tuned = rows["tuned"]
    multiple = tuned["alpha"] / rows["dvariance"]["alpha"]
    text = (
        f"Of {tuned['n_alphas']} alphas, {tuned['alpha']:.4g} ({multiple:.2g} times the paper's) "
    )
    text += f"gives the sizes that are nearest to {draw}: {_list(tuned['sizes'])}"
    high, low = rows["tuned_10x"], rows["tuned_0.1x"]
    text += f"{_agreement(tuned)}. Ten times this alpha gives {_list(high['sizes'])}"
    text += f"{_agreement(high)}, a tenth {_list(low['sizes'])}{_agreement(low)}."
    return text


def unlabelled_reading(draw: str, rows: dict[str, Scores], deep: dict[str, Scores]) -> str:
    text = "Without classes, only the sizes can be compared. EKMeans finds clusters of "
    text += f"{_list(rows['ekm']['sizes'])} images in the codes, hard k-means of "
    text += f"{_list(rows['kmeans']['sizes'])}, and DeepEKM, which trains an encoder together with "
    return text + f"the clusters, of {_list(deep['DeepEKM']['sizes'])}."


def _list(sizes: list[int]) -> str:
    return ", ".join(map(str, sizes))


def _agreement(scores: Scores) -> str:
    return f" (ARI {scores['ari']:.2f})" if "ari" in scores else ""


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
    low = rows["tuned_0.1x"]["centroids"]["to_each_other"]
    if max(low) < 0.01:
        text = "At 0.1 x the tuned alpha all centroids coincide, since the memberships are too"
        text += " soft to separate the data."
    else:
        text = "At 0.1 x the tuned alpha the centroids do not all coincide; the largest distance"
        text += f" between two of them is {max(low):.2f}."
    high = rows["tuned_10x"]
    if "ari" in high and abs(high["ari"] - rows["kmeans"]["ari"]) < 0.05:
        text += " At 10 x the tuned alpha EKM gives about the same result as hard k-means, as its"
        text += f" formula predicts (ARI {high['ari']:.2f})."
    elif "ari" in high:
        text += f" At 10 x the tuned alpha EKM has an ARI of {high['ari']:.2f}."
    for multiple in ("10", "100"):
        stable, naive = rows[f"stable_{multiple}x"], rows[f"naive_{multiple}x"]
        text += f" At {multiple} x, the exponentials of {100 * naive['lost']:.0f} % of the images"
        text += " are smaller than the 1e-8 that the naive formula adds to their sum. Started from"
        text += " the tuned centroids, it"
        n = len(naive["centroids"]["to_origin"])
        at_origin = sum(value < 0.01 for value in naive["centroids"]["to_origin"])
        if at_origin == n:
            text += " underflows and moves every centroid to the origin"
        elif at_origin:
            text += f" underflows and moves {at_origin} of {n} centroids to the origin"
        elif not naive["converged"]:
            text += " does not converge"
        else:
            text += " converges too"
        text += f"{_agreement(naive)}; the formula with shifted exponents gives clusters of"
        text += f" {_list(stable['sizes'])}{_agreement(stable)}."
    return text


def sizes_reading(clustering: dict[str, Any]) -> str:
    texts = []
    for draw, rows in clustering.items():
        true, kmeans = rows["ekm"]["true_sizes"], rows["kmeans"]["sizes"]
        ekm, tuned = rows["ekm"]["sizes"], rows["tuned"]["sizes"]
        text = f"In the draw {draw}, the largest class has {max(true)} images. The largest cluster"
        text += f" has {max(ekm)} with EKM, {max(tuned)} at the tuned alpha and {max(kmeans)} with"
        texts.append(text + " hard k-means.")
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


def others_reading(rows: list[Scores], draw: str) -> str:
    if not rows:
        return ""
    better = sum(row[draw]["ekm"] > row[draw]["kmeans"] + CLEARLY for row in rows)
    worse = sum(row[draw]["ekm"] < row[draw]["kmeans"] - CLEARLY for row in rows)
    text = f"The result depends on the classes: in the draw {draw}, EKMeans(3) is clearly better "
    text += f"than hard k-means on {better} of these {len(rows)} triples, clearly worse on {worse},"
    text += f" and about equal on {len(rows) - better - worse}."
    means = {k: float(np.mean([row[draw][k] for row in rows])) for k in rows[0][draw]}
    text += f" The mean ARI of EKMeans(3) in this draw is {means['ekm']:.2f}; with the paper's "
    text += f"alpha it is {means['dvariance']:.2f}, and that of hard k-means is "
    return text + f"{means['kmeans']:.2f}."


def tsne_reading(rows: dict[str, Scores]) -> str:
    apart = rows["tuned_0.1x"]["centroids"]["to_each_other"]
    start = "At 0.1 x the tuned alpha the centroids " + (
        "coincide" if max(apart) < 0.01 else f"are up to {max(apart):.2f} apart"
    )
    values = [rows[key]["ari"] for key in ("tuned_0.1x", "tuned", "tuned_10x")]
    which = ["at 0.1 x the tuned alpha", "at the tuned alpha", "at 10 x the tuned alpha"]
    agree = f"The labels agree best with the true ones {which[int(np.argmax(values))]}"
    return f"{start}. {agree} (ARI {max(values):.2f})."


def anomaly_reading(scores: Scores) -> str:
    ratio = scores["anomaly_loss"] / scores["normal_loss"]
    text = f"The mean loss of anomalous images is {ratio:.1f} times that of normal images, and the "
    text += f"area under the ROC curve of the loss is {scores['auc']:.3f}."
    best = max(scores["detectors"], key=lambda name: scores["detectors"][name]["auc"])
    chosen = scores["detectors"]["reconstruction"]
    n, share = scores["n_threshold"], scores["contamination"]
    text += f" The threshold was computed from half of the held-out images ({n}), so that "
    if share * (n + 1) < 1:
        text += f"about one in {n + 1} normal images lies above it: {100 * share:.0f} % were"
        text += " wanted, but this is the least that so few images allow. With"
    else:
        text += f"{100 * share:.0f} % of normal images should lie above it. With"
    text += f" it, the reconstruction finds {100 * chosen['found']:.1f} % of the anomalies and"
    text += f" calls {100 * chosen['false_alarms']:.1f} % of the other half abnormal."
    if best != "reconstruction" and scores["detectors"][best]["auc"] > chosen["auc"] + 0.005:
        return text + f" The score {best!r} has a larger area under the curve here."
    return text + " No other score has a clearly larger area under the curve here."


def separation_reading(scores: Scores) -> str:
    """Whether the loss separates the images, and why, as far as the figures say."""
    overlap, auc = scores["overlap"], scores["auc"]
    if overlap == 0:
        text = "The losses of the two kinds of images do not overlap: one threshold separates them."
    elif overlap < 0.05:
        text = "The loss separates the two kinds of images almost: at the best threshold, "
        text += f"{100 * overlap:.1f} % are on the wrong side."
    elif overlap < 0.25:
        text = "The loss separates the two kinds of images in part: at the best threshold, "
        text += f"{100 * overlap:.0f} % are on the wrong side."
    else:
        text = "The loss does not separate the two kinds of images: even at the best threshold, "
        text += f"{100 * overlap:.0f} % are on the wrong side, where guessing gives 50 %."
    if auc < 0.4:
        text += " Anomalous images have even the smaller losses."
    normal, strange = scores["contrast"]["normal"], scores["contrast"]["anomalous"]
    text += " An image that is reconstructed by its mean colour has its variance as loss: "
    text += f"{normal:.4f} for normal images and {strange:.4f} for anomalous ones on average. "
    left = [
        scores["normal_loss"] / max(normal, 1e-12),
        scores["anomaly_loss"] / max(strange, 1e-12),
    ]
    text += f"The model leaves {100 * left[0]:.0f} % and {100 * left[1]:.0f} % of it. "
    if left[0] > UNTRAINED:
        text += "So it reconstructs normal images hardly better than by their mean colour, or"
        text += " worse, and its loss tells little of anomalies but their contrast: more epochs may"
        text += " help."
        return text + _half_of_error(scores)
    worse, separated = left[1] > 1.5 * left[0], overlap < 0.25
    if worse and separated:
        text += "So it has learned what normal images look like, and this does not describe the"
        text += " anomalous ones."
    elif worse:
        text += "So, by their contrast, the anomalous images are reconstructed worse; but they have"
        text += " so little contrast that their losses are not larger."
    elif separated and strange > 1.5 * normal:
        text += "So the anomalous images have larger losses mainly because they have more contrast."
    else:
        text += "So it reconstructs the anomalous images about as well as the normal ones, by edges"
        text += " and areas that both have."
    return text + _half_of_error(scores)


def _half_of_error(scores: Scores) -> str:
    half = scores["half_of_error"]
    text = f" Half of the error lies in {100 * half['normal']:.0f} % of the pixels of a normal"
    return text + f" image and in {100 * half['anomalous']:.0f} % of those of an anomalous one."


def pipeline_reading(facts: Scores) -> str:
    text = (
        f"{facts['file']} ({facts['megabytes']:.1f} MB) holds encoder, decoder and clusters. Run by"
    )
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
        text = f"Neither DeepEKM nor deep hard k-means gives clearly better clusters here {pair}"
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
