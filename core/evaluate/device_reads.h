// Reading numbers from rows that many prompts share, a few tensor operations for all reads of one
// kind at one place. Includes torch.
#ifndef EPO_CORE_EVALUATE_DEVICE_READS_H_
#define EPO_CORE_EVALUATE_DEVICE_READS_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "core/evaluate/model_target.h"
#include "core/evaluate/plan.h"

namespace epo {

// The reads of one pass by kind and place.
class ReadGroups {
 public:
  struct Key {
    // Order of reading.
    int64_t layer;
    Read::Site site;
    Read::Kind kind;
    auto operator<=>(const Key&) const = default;
  };
  struct Group {
    std::vector<int64_t> rows;
    // A column, a head, a token, or a row of Vectors().
    std::vector<int64_t> which;
    // Where each number goes, an index of the caller's.
    std::vector<size_t> results;
  };

  // A read from the pass's row `row`.
  void Add(const ModelTarget& target, const Read& read, int64_t row, size_t result);

  // Fills each group up to a multiple of `multiple` with reads from row 0 that nobody asked for.
  void Pad(int64_t multiple);

  const std::map<Key, Group>& groups() const { return groups_; }

  // The vectors of all reads at a site's width, [vectors, width]; undefined if there are none.
  std::array<at::Tensor, 3> Vectors() const;
  // Its place there.
  static size_t WidthOf(Read::Site site);

 private:
  std::map<Key, Group> groups_;
  std::array<std::vector<at::Tensor>, 3> vectors_;
  std::array<std::map<const void*, int64_t>, 3> index_;
};

// The numbers at `rows` of `x` [.., width], in `wide`: float32, or float64. `which` and `vectors`
// as in a group. For kinds kElement to kCosine. Differentiable with respect to `x`.
at::Tensor ReadRows(Read::Kind kind, const at::Tensor& x, const at::Tensor& rows,
                    const at::Tensor& which, const at::Tensor& vectors, c10::ScalarType wide);

// For kinds kLogit and kBestOther, from `normed`, what the head reads, [reads, hidden]: one row a
// read; `tokens` [reads]. In `wide`. Differentiable with respect to `normed`.
at::Tensor ReadLogits(const Model& model, Read::Kind kind, const at::Tensor& normed,
                      const at::Tensor& tokens, c10::ScalarType wide);

}  // namespace epo

#endif  // EPO_CORE_EVALUATE_DEVICE_READS_H_
