"""Names of the methods in the report, and the calls that compute them."""

NAMES = {
    "ekm": "EKM, default",
    "dvariance": "EKM, paper's alpha",
    "ekm_0.1x": "EKM, 0.1 x paper's alpha",
    "ekm_10x": "EKM, 10 x paper's alpha",
    "stable_10x": "EKM from the first row's centroids, 10 x",
    "naive_10x": "naive formula from the first row's centroids, 10 x",
    "stable_100x": "EKM from the first row's centroids, 100 x",
    "naive_100x": "naive formula from the first row's centroids, 100 x",
    "kmeans": "hard k-means",
}
CALLS = {
    "ekm": "EKMeans(3)",
    "dvariance": 'EKMeans(3, alpha="dvariance")',
    "kmeans": "KMeans(3, n_init=10)",
}
