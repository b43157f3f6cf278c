// Sums of the parts of a whole, added in the order of the parts whichever thread is done first, so
// that the rounding does not depend on the threads.
//
// Parts are added as soon as those before them are, by one thread at a time while the others go on
// to the next: no more of them exist than are in work or wait for one before them, and what they
// hold is mostly still in the caches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace ekmfast {

class OrderedSum {
 public:
  typedef std::unique_ptr<double[]> Part;

  OrderedSum(std::int64_t n_parts, std::int64_t size)
      : size_(static_cast<std::size_t>(size)),
        total_(size_),
        pending_(static_cast<std::size_t>(n_parts)) {}

  // Zeros, to be summed into and given back to add().
  Part take();

  // Each index of 0 .. n_parts - 1 once.
  void add(std::int64_t index, Part part);

  // Complete once every part has been added.
  const std::vector<double>& total() const { return total_; }

 private:
  const std::size_t size_;
  std::vector<double> total_;
  std::mutex mutex_;  // of what follows; total_ is the adding thread's
  std::vector<Part> pending_, free_;
  std::size_t next_ = 0;
  bool adding_ = false;
};

}  // namespace ekmfast
