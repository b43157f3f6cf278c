"""Mixtures of Student distributions, and their expectation maximization by sums that add.

A component k has a weight pi_k, a mean m_k, a scatter matrix S_k, and v degrees of freedom, which
all components share. With D features and the squared distance

    q_nk = (x_n - m_k)^T S_k^-1 (x_n - m_k)

its density at x_n is (Eq. 22, eq-student; these numbers are those of docs/mathematics.md)

    log f_k(x_n) = log G((v + D)/2) - log G(v/2) - D/2 log(v pi) - 1/2 log |S_k|
                   - (v + D)/2 log(1 + q_nk / v),

G being the gamma function; it is a Gaussian if v is infinite. One iteration of expectation
maximization (Peel and McLachlan 2000) computes (Eq. 23, eq-responsibility)

    r_nk = pi_k f_k(x_n) / sum_i pi_i f_i(x_n)         (responsibilities)
    u_nk = (v + D) / (v + q_nk)                        (small for far rows)

and from them

    pi_k = sum_n r_nk / N
    m_k  = sum_n r_nk u_nk x_n / sum_n r_nk u_nk
    S_k  = sum_n r_nk u_nk (x_n - m_k)(x_n - m_k)^T / sum_n r_nk

Here (Eq. 24, eq-em) each scatter matrix is shrunk towards the common one, C = sum_k pi_k S_k / t_k,
times the scale t_k of the component: as if some further rows with that scatter belonged to it. So a
component of a few rows has a scatter matrix that can be inverted, and the likelihood has no
infinite maxima.

A mixture may have a background, one more component of constant density f_0 (Eq. 25, eq-background).
It takes part in the sums over i, and pi_0 = sum_n r_n0 / N is its share.

The sums over rows are computed by the compiled kernels, for several mixtures in one reading of the
rows, and of rows in memory all iterations are (csrc/maximization.h). `ekmfast._reference` has both
in plain NumPy. Where a matrix is not positive definite, or the common one has too small a variance
in some direction, LAPACK computes the step by eigenvectors.

`student` holds the parameters, `rows`, `sparse` and `blocks` compute the `sums` of one pass, `step`
makes the next mixture of them, and `iteration` repeats both. `labelled` makes the first mixtures,
and `gaussian` labels for some of them. `joining` and `moves` change labels, by the likelihoods that
`classified` computes. `shapes` searches for the best mixture of so many components, and `search`
does so in a sample, for any number of them.

References
----------
D. Peel and G. J. McLachlan, "Robust mixture modelling using the t distribution", Statistics and
Computing 10, 339 (2000).
"""
