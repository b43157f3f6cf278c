"""The demo's pictures and its page. Each sentence of reading is computed from the numbers."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ekmfast._files import replace_file
from ekmfast._optional import require
from ekmfast.plotting import (
    PALETTE,
    new_figure,
    plot_anomaly_map,
    plot_clusters,
    plot_sizes,
)

if TYPE_CHECKING:
    from ekmfast.demo import Fit

__all__ = [
    "map_figure",
    "path_figure",
    "reconstruction_figure",
    "sizes_figure",
    "tsne_figure",
    "write_report",
]

NAMES = {
    "ekm": "EKM, default",
    "dvariance": "EKM, paper's alpha",
    "ekm_0.1x": "EKM, 0.1 x paper's alpha",
    "ekm_10x": "EKM, 10 x paper's alpha",
    "stable_10x": "EKM from the first row's centroids, 10 x",
    "naive_10x": "naive formula from there, 10 x",
    "stable_100x": "EKM from the first row's centroids, 100 x",
    "naive_100x": "naive formula from there, 100 x",
    "kmeans": "hard k-means",
}
CALLS = {
    "ekm": "EKMeans(3)",
    "dvariance": 'EKMeans(3, alpha="dvariance")',
    "kmeans": "KMeans(3, n_init=10)",
}
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
Array = NDArray[Any]


# --- pictures ------------------------------------------------------------------------------


def _save(figure: Any, path: Path) -> Path:
    # No version in the file, so that the same numbers give the same bytes.
    replace_file(
        path,
        lambda file: figure.savefig(file, format="png", dpi=110, metadata={"Software": None}),
    )
    return path


def sizes_figure(fits: dict[str, dict[str, Fit]], names: list[str], path: Path) -> Path:
    """Sizes of the clusters that EKM and k-means find, beside the true ones."""
    figure, axes = new_figure(9, 3.2, columns=len(fits), sharey=True)
    for ax, (draw, row) in zip(axes[0], fits.items(), strict=True):
        sizes = {"truth": row["ekm"].scores["true_sizes"]}
        sizes |= {NAMES[key]: row[key].scores["sizes"] for key in ("ekm", "kmeans")}
        plot_sizes(sizes, [f"class {name}" for name in names], ax)
        ax.set_title(f"drawn {draw}", fontsize=11)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    for ax in axes[0]:
        ax.get_legend().remove()
    axes[0, 1].set_ylabel("")
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return _save(figure, path)


def path_figure(
    paths: dict[str, list[Scores]], fits: dict[str, dict[str, Fit]], path: Path
) -> Path:
    """ARI and mean objective over multiples of the paper's alpha, and where the default lies."""
    figure, axes = new_figure(9, 3.4, columns=2, sharex=True)
    for (draw, rows), colour, marker in zip(paths.items(), PALETTE, "os", strict=False):
        multiples = [row["multiple"] for row in rows]
        for ax, key in zip(axes[0], ("ari", "mean_objective"), strict=True):
            values = [row[key] for row in rows]
            ax.plot(multiples, values, color=colour, marker=marker, ms=4, label=f"EKM, {draw}")
        alpha = fits[draw]["ekm"].scores["alpha"] / fits[draw]["dvariance"].scores["alpha"]
        axes[0, 0].plot(
            [alpha],
            [fits[draw]["ekm"].scores["ari"]],
            ls="",
            marker="*",
            ms=15,
            mec="k",
            color=colour,
            label=f"default, {draw}",
        )
        flat = fits[draw]["kmeans"].scores["ari"]
        axes[0, 0].axhline(flat, color=colour, ls="--", lw=1.2, label=f"k-means, {draw}")
    for ax, name in zip(axes[0], ("adjusted Rand index", "objective J per sample"), strict=True):
        ax.axvline(1, color="0.6", lw=0.8, zorder=0)
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        ticks = [tick for tick in (0.1, 0.3, 1, 3, 10, 30, 100) if low <= tick <= high]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.set_xlabel("multiple of the paper's alpha")
        ax.set_ylabel(name)
        ax.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return _save(figure, path)


def tsne_figure(
    points: Array,
    classes: Array,
    panels: dict[str, tuple[Fit, Array]],
    names: list[str],
    path: Path,
) -> Path:
    """Clusters and centroids in the plane at three alphas, and the true classes."""
    figure, axes = new_figure(9, 8.2, 2, 2, sharex=True, sharey=True)
    for ax, (key, (fit, centroids)) in zip(axes.flat, panels.items(), strict=False):
        plot_clusters(points, fit.labels, centroids, ax, point_size=14)
        title = f"{NAMES[key]}: ARI {fit.scores['ari']:.2f}"
        if len(np.unique(centroids, axis=0)) == 1:
            title += " (one point)"
        ax.set_title(title, fontsize=11)
    last = axes[1, 1]
    plot_clusters(points, classes, ax=last, point_size=14)
    last.set_title("true classes", fontsize=11)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    matplotlib: Any = require("matplotlib.lines", "plot")
    handles = [
        matplotlib.Line2D([], [], ls="", marker="o", color=PALETTE[c], label=f"class {name}")
        for c, name in enumerate(names)
    ]
    cross = matplotlib.Line2D([], [], ls="", marker="x", ms=9, mew=2, color="k", label="centroid")
    figure.legend(handles=[*handles, cross], loc="outside lower center", ncols=4, frameon=False)
    return _save(figure, path)


def reconstruction_figure(
    groups: dict[str, tuple[Array, Array, Array]], losses: tuple[Array, Array], path: Path
) -> Path:
    """Originals above their reconstructions, normal and anomalous, and the losses of all."""
    matplotlib: Any = require("matplotlib.figure", "plot")
    figure = matplotlib.Figure(figsize=(9, 7.6), layout="constrained")
    parts = figure.subfigures(3, 1, height_ratios=[1, 1, 1.1])
    for part, (name, (images, back, loss)) in zip(parts, groups.items(), strict=False):
        part.suptitle(f"{name}: original above, reconstruction below, loss", fontsize=11)
        axes = part.subplots(2, len(images), squeeze=False)
        for column, (image, again, value) in enumerate(zip(images, back, loss, strict=True)):
            for ax, picture in zip(axes[:, column], (image, again), strict=True):
                shown = np.clip(picture.transpose(1, 2, 0), 0, 1)
                ax.imshow(shown, cmap="gray", vmin=0, vmax=1)
                ax.set_xticks([])
                ax.set_yticks([])
            axes[1, column].set_xlabel(f"{value:.3f}", fontsize=9)
    ax = parts[2].subplots()
    together = np.concatenate(losses)
    bins = np.geomspace(max(together.min(), 1e-6) * 0.95, together.max() * 1.05, 40)
    for values, name, colour, hatch in zip(losses, groups, PALETTE, ("", "//"), strict=False):
        share = np.full(len(values), 1 / len(values))
        ax.hist(values, bins, weights=share, color=colour, alpha=0.75, hatch=hatch, label=name)
    ax.set_xscale("log")
    ticker: Any = require("matplotlib.ticker", "plot")
    ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.set_xlabel("reconstruction loss (mean squared error)")
    ax.set_ylabel("share of images")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return _save(figure, path)


def map_figure(images: Array, reconstructions: Array, path: Path) -> Path:
    """Where in each image the error lies."""
    axes = plot_anomaly_map(images, reconstructions)
    return _save(axes.flat[0].figure, path)


# --- sentences -----------------------------------------------------------------------------


def _finetune_reading(scores: Scores) -> str:
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


def _verdict(scores: Scores) -> str:
    """In words, how near the clusters come to the classes."""
    words = next(text for least, text in VERDICTS if scores["ari"] >= least)
    return f"{words} (ARI {scores['ari']:.2f}, accuracy {scores['accuracy']:.2f})"


def _draw_reading(draw: str, rows: dict[str, Scores]) -> str:
    ekm, kmeans = rows["ekm"], rows["kmeans"]
    gain = ekm["ari"] - kmeans["ari"]
    if gain > CLEARLY:
        order = "well ahead of"
    elif gain < -CLEARLY:
        order = "well behind"
    else:
        order = "about equal to"
    text = f"Drawn {draw}, EKMeans(3) {_verdict(ekm)}, {order} hard k-means, which "
    text += (
        f"{_verdict(kmeans)}. It chose {ekm['alpha'] / rows['dvariance']['alpha']:.2g} times the "
    )
    text += f"paper's alpha, with which EKM {_verdict(rows['dvariance'])}."
    return text


def _collapse_reading(rows: dict[str, Scores]) -> str:
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


def _path_reading(paths: dict[str, list[Scores]], clustering: dict[str, Any]) -> str:
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


def _others_reading(rows: list[Scores]) -> str:
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


def _anomaly_reading(scores: Scores) -> str:
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


def _pipeline_reading(facts: Scores) -> str:
    text = f"pipeline.ts ({facts['megabytes']:.1f} MB) holds encoder, decoder and clusters; read by"
    text += " PyTorch alone it labels "
    if facts["equal_labels"] == 1:
        return text + f"all {facts['n_images']} images as the steps one by one do."
    share = 100 * facts["equal_labels"]
    return text + f"{share:.1f} % of {facts['n_images']} images as the steps one by one do."


def _deep_reading(rows: dict[str, Scores]) -> str:
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


# --- page ----------------------------------------------------------------------------------

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>ekmfast demo</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222 }
h1, h2, h3 { line-height: 1.2 } h2 { margin-top: 2.5rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
th { border-bottom: 2px solid #888 } th:first-child, td:first-child { text-align: left }
img { max-width: 100% } .wide { overflow-x: auto } .note { color: #555 }
</style>
<h1>Equilibrium k-means on the codes of an autoencoder</h1>
<p>{{ r.data }}. Seed {{ r.seed }}.{% if r.quick %} <strong>Quick run: the figures mean
nothing.</strong>{% endif %}</p>

<h2>1. Training</h2>
<table>
<tr><th>finetuned from the same pretrained weights</th><th>validation accuracy</th></tr>
<tr><td>without augmentation</td><td>{{ pct(r.finetune.accuracy) }}</td></tr>
<tr><td>with augmentation</td><td>{{ pct(r.finetune.accuracy_augmented) }}</td></tr>
</table>
<p>{{ finetune_reading }}</p>
<p class="note">{{ r.finetune.n_train }} images were trained on, {{ r.finetune.n_validation }} held
out; the held-out ones also chose the epoch. The better model was exported to TorchScript
(model.ts), read back, and made all codes below. Most of the images clustered below were trained on
with their labels: the codes are easier than those of a model without labels would be.</p>

<h2>2. Clustering classes {{ r.classes|join(", ") }}</h2>
{% for draw, rows in r.clustering.items() %}
<h3>Drawn {{ draw }}: {{ rows.ekm.true_sizes|join(", ") }} images</h3>
<div class="wide"><table>
<tr><th></th><th>alpha</th><th>ARI</th><th>NMI</th><th>accuracy</th><th>sizes</th><th>J</th>
<th>nearest two centroids</th><th>nearest to origin</th><th>farthest from class mean</th></tr>
{% for key, s in rows.items() %}
<tr><td>{{ names[key] }}{% if key in calls %}: <code>{{ calls[key] }}</code>{% endif %}</td>
<td>{{ "%.4g"|format(s.alpha) if s.alpha is not none else "" }}</td>
<td>{{ num(s.ari) }}</td><td>{{ num(s.nmi) }}</td><td>{{ num(s.accuracy) }}</td>
<td>{{ s.sizes|join(", ") }}</td><td>{{ "%.4g"|format(s.objective) }}</td>
<td>{{ num(s.centroids.to_each_other|min) }}</td><td>{{ num(s.centroids.to_origin|min) }}</td>
<td>{{ num(s.centroids.to_class_means|max) }}</td></tr>
{% endfor %}
</table></div>
<p>{{ draw_readings[draw] }}</p>
<p>{{ collapse_readings[draw] }}</p>
{% endfor %}
<p class="note">The rows with a call show what that call returns, with the seed of this run as
random_state and nothing else set. The paper's alpha is 2 / mean(1/2 ||x - mean||²); the rows with a
multiple of it have 16 starts as the default has, or begin from the first row's centroids where they
say so. Distances are in units of the codes' root mean square distance from their mean. The naive
formula is Eq. 38 without a shift before the exponential and with 1e-8 in its denominators. J is not
comparable between values of alpha; for hard k-means it is half the inertia.</p>
<img alt="Sizes of the clusters" src="{{ pictures.sizes }}">
<p>{{ sizes_reading }}</p>
<img alt="ARI and objective over alpha" src="{{ pictures.path }}">
<p>{{ path_reading }}</p>
{% if r.other_classes %}
<h3>Other classes</h3>
<table>
<tr><th>classes, the large one first</th>
{% for draw in r.clustering %}<th>EKM, default, {{ draw }}</th><th>paper's alpha</th>
<th>k-means</th>{% endfor %}</tr>
{% for row in r.other_classes %}
<tr><td>{{ row.classes|join(", ") }}</td>
{% for draw in r.clustering %}<td>{{ num(row[draw].ekm) }}</td>
<td>{{ num(row[draw].dvariance) }}</td><td>{{ num(row[draw].kmeans) }}</td>{% endfor %}</tr>
{% endfor %}
</table>
<p>{{ others_reading }}</p>
{% endif %}

<h2>3. The codes in the plane (drawn 20:1:1)</h2>
<img alt="t-SNE of codes and centroids" src="{{ pictures.tsne }}">
<p>{{ tsne_reading }} t-SNE keeps neighbours, not distances, so a centroid between clusters may
be drawn inside one.</p>

<h2>4. Anomalies</h2>
<table>
<tr><th></th><th>images</th><th>mean loss</th></tr>
<tr><td>normal, held out</td><td>{{ r.anomaly.n_normal }}</td>
<td>{{ "%.4f"|format(r.anomaly.normal_loss) }}</td></tr>
<tr><td>anomalous</td><td>{{ r.anomaly.n_anomalies }}</td>
<td>{{ "%.4f"|format(r.anomaly.anomaly_loss) }}</td></tr>
</table>
<table>
<tr><th>detector</th><th>area under the ROC curve</th>
<th>anomalies found</th><th>false alarms</th></tr>
{% for name, s in r.anomaly.detectors.items() %}
<tr><td>{{ name }}</td><td>{{ "%.3f"|format(s.auc) }}</td><td>{{ pct(s.found) }}</td>
<td>{{ pct(s.false_alarms) }}</td></tr>
{% endfor %}
</table>
<p>{{ anomaly_reading }}</p>
<img alt="Originals and reconstructions" src="{{ pictures.anomalies }}">
<p>Where the error lies, in four normal and four anomalous images:</p>
<img alt="Error of each pixel" src="{{ pictures.map }}">

<h2>5. One file</h2>
<p>{{ pipeline_reading }} For a batch of images it gives {% for name, shape in
r.pipeline.outputs.items() %}{{ name }} {{ shape }}{{ ", " if not loop.last else "." }}{% endfor
%}</p>

<h2>6. Without labels: deep clustering (drawn 2:1:1)</h2>
<table>
<tr><th></th><th>ARI</th><th>recall of classes {{ r.classes|join(", ") }}</th>
<th>distinct centroids</th></tr>
{% for name, s in r.deep.items() %}
<tr><td>{{ name }}</td><td>{{ num(s.ari) }}</td>
<td>{% for v in s.recall %}{{ num(v) }}{{ ", " if not loop.last else "" }}{% endfor %}</td>
<td>{{ s.n_clusters }}</td></tr>
{% endfor %}
</table>
<p>{{ deep_reading }}</p>
<p class="note">A small encoder of its own, which saw the images of this draw at 16 x 16 pixels and
no labels: reconstruction and contrast in a warm-up, then one of the two losses on top. One draw
tells little; the comparison over draws and seeds is in bench/README.md.</p>

<h2>7. This run</h2>
<table><tr><th>stage</th><th>seconds</th></tr>
{% for name, value in r.seconds.items() %}<tr><td>{{ name }}</td><td>{{ "%.1f"|format(value) }}</td>
</tr>{% endfor %}</table>
<p class="note">{% for name, value in r.versions.items() %}{{ name }} {{ value }}{{ ", " if not
loop.last else "." }}{% endfor %}</p>
</html>
"""


def _sizes_reading(clustering: dict[str, Any]) -> str:
    texts = []
    for draw, rows in clustering.items():
        true, found = rows["ekm"]["true_sizes"], rows["kmeans"]["sizes"]
        ekm = rows["ekm"]["sizes"]
        text = f"drawn {draw}, the largest class of {max(true)} became a cluster of {max(ekm)}"
        texts.append(text + f" with EKM and of {max(found)} with hard k-means")
    text = "; ".join(texts) + "."
    return text[0].upper() + text[1:]


def _tsne_reading(rows: dict[str, Scores]) -> str:
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


def write_report(results: Scores, pictures: dict[str, Path], path: Path) -> None:
    """Write one HTML file that needs no other.

    Parameters
    ----------
    results : dict
        What `ekmfast.demo.run` returns.
    pictures : dict of str to Path
        PNG files under "sizes", "path", "tsne", "anomalies" and "map"; they are put into the page.
    path : Path
        File to write.

    Examples
    --------
    >>> import json
    >>> from pathlib import Path
    >>> from ekmfast.demo.report import write_report
    >>> out = Path("demo-out")
    >>> results = json.loads((out / "metrics.json").read_text())  # doctest: +SKIP
    >>> names = ("sizes", "path", "tsne", "anomalies", "map")
    >>> pictures = {name: out / f"{name}.png" for name in names}
    >>> write_report(results, pictures, out / "again.html")  # doctest: +SKIP
    """
    jinja2: Any = require("jinja2", "demo")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    clustering = results["clustering"]
    embedded = {
        name: "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")
        for name, file in pictures.items()
    }
    page = environment.from_string(_PAGE).render(
        r=results,
        names=NAMES,
        calls=CALLS,
        pictures=embedded,
        num=lambda value: f"{value:.2f}",
        pct=lambda value: f"{100 * value:.1f} %",
        finetune_reading=_finetune_reading(results["finetune"]),
        draw_readings={draw: _draw_reading(draw, rows) for draw, rows in clustering.items()},
        collapse_readings={draw: _collapse_reading(rows) for draw, rows in clustering.items()},
        sizes_reading=_sizes_reading(clustering),
        path_reading=_path_reading(results["path"], clustering),
        others_reading=_others_reading(results["other_classes"]),
        tsne_reading=_tsne_reading(clustering["20:1:1"]),
        anomaly_reading=_anomaly_reading(results["anomaly"]),
        pipeline_reading=_pipeline_reading(results["pipeline"]),
        deep_reading=_deep_reading(results["deep"]),
    )
    replace_file(path, lambda file: file.write(page.encode("utf-8", "replace")))
