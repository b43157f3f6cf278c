"""Names of the methods in the report, and the calls that compute them."""

NAMES = {
    "ekm": "EKM, default",
    "dvariance": "EKM, paper's alpha",
    "tuned": "EKM, alpha tuned to the wanted sizes",
    "tuned_0.1x": "EKM, 0.1 x the tuned alpha",
    "tuned_10x": "EKM, 10 x the tuned alpha",
    "stable_10x": "EKM from the tuned centroids, 10 x",
    "naive_10x": "naive formula from the tuned centroids, 10 x",
    "stable_100x": "EKM from the tuned centroids, 100 x",
    "naive_100x": "naive formula from the tuned centroids, 100 x",
    "kmeans": "hard k-means",
}
CALLS = {
    "ekm": "EKMeans({k})",
    "dvariance": 'EKMeans({k}, alpha="dvariance")',
    "kmeans": "KMeans({k}, n_init=10)",
}
