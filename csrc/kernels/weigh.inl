// Stage 3: scores become weights.

// t (k, panel) becomes s * w. With u_k = 2^r_k, S = sum u, m = sum u r / S:
//   s w_k = u_k (a + b r_k),  b = ln2 s / S,  a = s / S - b m;    E = 1/2||y||^2 - (max t + m) / q.
template <class F>
static inline void weigh_panel(const typename F::T* sample_weight, i64 k, const F* best,
                               typename F::T* t, const Scratch<F>& s, F* expected) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const F floor = F::all(kMinExponent<T>);
  F sum[kPanelVectors], moment[kPanelVectors];
  for (int v = 0; v < kPanelVectors; ++v) sum[v] = moment[v] = F::all(0);
  for (i64 i = 0; i < k; ++i) {
    for (int v = 0; v < kPanelVectors; ++v) {
      const F r = F::max(F::load(t + i * P + v * F::W) - best[v], floor);
      const F u = exp2_nonpositive<F>(r);
      u.store(s.exponentials + i * P + v * F::W);
      r.store(t + i * P + v * F::W);
      sum[v] = sum[v] + u;
      moment[v] = F::fma(u, r, moment[v]);
    }
  }
  F a[kPanelVectors], b[kPanelVectors], share[kPanelVectors];
  for (int v = 0; v < kPanelVectors; ++v) {
    const F inverse = F::all(1) / sum[v];
    const F mean = moment[v] * inverse;
    share[v] = F::load(sample_weight + v * F::W) * inverse;
    b[v] = share[v] * F::all(T(kLn2));
    a[v] = share[v] - b[v] * mean;
    expected[v] = best[v] + mean;
  }
  for (i64 i = 0; i < k; ++i) {
    F w_sum = F::load(s.sum_w + i * F::W), p_sum = F::load(s.sum_p + i * F::W);
    for (int v = 0; v < kPanelVectors; ++v) {
      const F u = F::load(s.exponentials + i * P + v * F::W);
      const F r = F::load(t + i * P + v * F::W);
      const F w = u * F::fma(b[v], r, a[v]);
      w.store(t + i * P + v * F::W);
      w_sum = w_sum + w;
      p_sum = F::fma(u, share[v], p_sum);
    }
    w_sum.store(s.sum_w + i * F::W);
    p_sum.store(s.sum_p + i * F::W);
  }
}
